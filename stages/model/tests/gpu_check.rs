//! `benches/gpu_check.sh` believes nothing that it has not seen.
//!
//! No GPU is here, so it runs on stand-ins: honest ones, which it must pass, and such as leave out one thing that a
//! GPU has to show, of which it must say so and name the part. What passes for nothing proves nothing.

#![cfg(unix)]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

/// What multiplies, by stand-ins that begin with this: cuBLASLt where the lie is about it and nobody forbids it.
const PRODUCTS: &str = r#"
products='own products'
case $LIE:$TINYLM_CUBLASLT in library*:none) ;; library*) products='products of cuBLASLt 12.4.5' ;; esac
[ "$LIE" = "library still" ] && products='products of cuBLASLt 12.4.5'
"#;

/// Says what the real programs say where all is well; `LIE` leaves out one thing.
const STAND_INS: [(&str, &str); 6] = [
    (
        "nvidia-smi",
        r#"case $1 in *index*) printf '0\n1\n' ;; *) echo 'NVIDIA X, 550, 80 GB' ;; esac"#,
    ),
    ("compute-sanitizer", r#"shift 4; exec "$@""#),
    (
        "tinylm",
        r#"
if [ "$1" = doctor ]; then
  [ "$LIE" = "no gpu" ] && echo 'gpu none: no libcuda' || echo "cuda NVIDIA X, $products: \`--device cuda:0\` trains on it"
  exit
fi
[ "$LIE" = "library unused" ] && products='own products'
home=$2 step=$2/work/key/checkpoints/step-0000000003 artifact=abcd
[ "$LIE" = "on a cpu" ] || echo "model: trains on NVIDIA X, sm_90a, $products"
[ "$LIE" = "reads on a cpu" ] || echo 'perplexity: reads on NVIDIA X, sm_90a, own products'
case $home in
*several-0,1) [ "$LIE" = "another sum" ] && artifact=efgh ;;
*killed)
  if [ -e "$step" ]; then
    [ "$LIE" = "begins anew" ] || echo 'model: going on from step 3 of 9'
    [ "$LIE" = "other bytes" ] && artifact=efgh
  else
    [ "$LIE" = "over too soon" ] && exit
    mkdir -p "$step"
    exec sleep 60
  fi
esac
[ "$LIE" = "makes nothing" ] || mkdir -p "$home/store/artifacts/12/$artifact"
"#,
    ),
    (
        "tests",
        r#"
echo 'SKIPPED: neither Metal nor Vulkan shows one, so no WGSL runs'
[ "$products" = 'own products' ] && echo 'SKIPPED: so no cuBLASLt multiplies: none is found, or TINYLM_CUBLASLT says none'
[ "$LIE" = "library skipped" ] && echo 'SKIPPED: so no cuBLASLt multiplies'
[ "$LIE" = "skips" ] && echo 'SKIPPED: no libcuda'
[ "$LIE" = "no tests" ] && n=0 || n=70
echo "test result: ok. $n passed; 0 failed"
"#,
    ),
    (
        "step",
        r#"
[ "$LIE" = "library unused" ] && products='own products'
[ "$LIE" = "no figures" ] || echo "mini f32 (kernels NVIDIA X, sm_90a, $products): 9 tokens/s""#,
    ),
    ("lazy", "exit 0"),
];

/// Runs the script on these stand-ins: the parts that failed, and those that passed.
fn check(folder: &Path, [tinylm, tests, step]: [&str; 3], lie: &str) -> (Vec<String>, Vec<String>) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/gpu_check.sh");
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("bash")
        .arg(script)
        .args([tinylm, tests, "quickstart.yaml", step])
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("TMPDIR", folder)
        .env("LIE", lie)
        .env_remove("TINYLM_CUBLASLT")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let parts = |word: &str| -> Vec<String> {
        let lines = said.lines().filter_map(|line| line.strip_prefix(word));
        let names = lines.map(|line| line.trim().split(':').next().unwrap().to_owned());
        names.collect()
    };
    let (failed, passed) = (parts("FAIL"), parts("PASS"));
    assert_eq!(output.status.code(), Some(failed.len() as i32), "{said}");
    (failed, passed)
}

fn stand_ins() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in STAND_INS {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/bash\n{PRODUCTS}\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(folder.path().join("quickstart.yaml"), "name: q").unwrap();
    folder
}

const HONEST: [&str; 3] = ["tinylm", "tests", "step"];

#[test]
fn what_shows_all_of_it_passes_and_what_does_nothing_fails_in_every_part() {
    let folder = stand_ins();
    let (failed, passed) = check(folder.path(), HONEST, "");
    assert_eq!(failed, Vec::<String>::new());
    let (all, none) = check(folder.path(), ["lazy"; 3], "");
    assert_eq!((all, none), (passed, Vec::new()));
}

#[test]
fn one_thing_left_out_fails_the_part_that_looks_for_it() {
    let folder = stand_ins();
    let sanitized = [
        "suite",
        "golden_losses",
        "memcheck",
        "memcheck-reading",
        "memcheck-bf16",
        "racecheck",
        "racecheck-reading",
        "racecheck-bf16",
    ];
    let figures = [
        "figures-mini-f32",
        "figures-mini-bf16",
        "figures-forty-one-f32",
        "figures-forty-one-bf16",
        "figures-124m-f32",
        "figures-124m-bf16",
    ];
    let trained = [
        "quickstart",
        "killed_and_resumed",
        "several",
        "shape_of_41m",
    ];
    let whole = ["quickstart", "shape_of_41m"];
    let told: [(&str, &[&str]); 11] = [
        ("no gpu", &["doctor"]),
        ("skips", &sanitized),
        ("no tests", &sanitized),
        ("on a cpu", &trained),
        ("reads on a cpu", &whole),
        ("makes nothing", &trained),
        ("another sum", &["several"]),
        ("over too soon", &["killed_and_resumed"]),
        ("begins anew", &["killed_and_resumed"]),
        ("other bytes", &["killed_and_resumed"]),
        ("no figures", &figures),
    ];
    for (lie, expected) in told {
        let (failed, _) = check(folder.path(), HONEST, lie);
        assert_eq!(failed, expected, "{lie}");
    }
}

#[test]
fn what_trains_is_looked_at_with_a_library_and_without_it() {
    let folder = stand_ins();
    let (failed, passed) = check(folder.path(), HONEST, "library");
    assert_eq!(failed, Vec::<String>::new());
    let trains = |name: &&String| !name.contains("check") && name.as_str() != "doctor";
    let (own, with_it): (Vec<_>, Vec<_>) = passed
        .iter()
        .filter(trains)
        .partition(|name| name.starts_with("own-"));
    let expected = with_it.iter().map(|name| format!("own-{name}"));
    assert!(
        own.into_iter().cloned().eq(expected) && with_it.len() == 12,
        "{passed:?}"
    );
    let of = |way: &str, names: &[&str]| -> Vec<String> {
        names.iter().map(|name| format!("{way}{name}")).collect()
    };
    let multiplied = [
        "quickstart",
        "killed_and_resumed",
        "several",
        "shape_of_41m",
        "figures-mini-f32",
        "figures-mini-bf16",
        "figures-forty-one-f32",
        "figures-forty-one-bf16",
        "figures-124m-f32",
        "figures-124m-bf16",
    ];
    let told = [
        ("library unused", of("", &multiplied)),
        ("library still", of("own-", &multiplied)),
        ("library skipped", of("", &["suite", "golden_losses"])),
    ];
    for (lie, expected) in told {
        let (failed, _) = check(folder.path(), HONEST, lie);
        assert_eq!(failed, expected, "{lie}");
    }
}
