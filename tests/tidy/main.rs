//! Properties of the source tree that no single crate can check.

mod circles;
#[path = "../skipped/mod.rs"]
mod skipped;

use std::{collections::BTreeSet, env, fs, path::Path, process::Command};

use skipped::skipped;

/// Who may import whom. A new line here is a design change; see `pipeline/DESIGN.md`.
const LAYERS: [(&str, &[&str]); 11] = [
    ("pipeline/settings", &[]),
    ("registry", &[]),
    ("registry/remote", &["tinylm-registry"]),
    ("stages/model", &["tinylm-settings"]),
    ("stages/exchange", &["tinylm-model", "tinylm-settings"]),
    ("pipeline", &["tinylm-registry", "tinylm-settings"]),
    ("reports", &["tinylm-registry"]),
    (
        "stages",
        &["tinylm-exchange", "tinylm-model", "tinylm-pipeline"],
    ),
    ("stages/serve", &["tinylm-model", "tinylm-stages"]),
    (
        "reports/live",
        &["tinylm-registry", "tinylm-reports", "tinylm-serve"],
    ),
    (
        ".",
        &[
            "tinylm-live",
            "tinylm-model",
            "tinylm-pipeline",
            "tinylm-registry",
            "tinylm-remote",
            "tinylm-reports",
            "tinylm-serve",
            "tinylm-stages",
        ],
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn crates_import_only_the_layers_below_them() {
    for (dir, allowed) in LAYERS {
        let manifest = fs::read_to_string(root().join(dir).join("Cargo.toml")).unwrap();
        let (_, rest) = manifest.split_once("\n[dependencies]\n").unwrap();
        let section = rest.split("\n[").next().unwrap();
        let imported: Vec<&str> = section
            .lines()
            .filter_map(|line| line.split([' ', '.']).next())
            .filter(|name| name.starts_with("tinylm-"))
            .collect();
        assert_eq!(imported, allowed, "{dir}/Cargo.toml");
    }
}

#[test]
fn the_top_level_holds_only_what_was_agreed() {
    let agreed = [
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "data",
        "experiments",
        "pipeline",
        "registry",
        "reports",
        "stages",
        "tests",
    ];
    let mut git = Command::new("git");
    let listed = git.arg("ls-files").current_dir(root()).output();
    let Some(listed) = listed.ok().filter(|listed| listed.status.success()) else {
        skipped("this is not a git checkout");
        return;
    };
    let listed = String::from_utf8(listed.stdout).unwrap();
    let found: BTreeSet<&str> = listed
        .lines()
        .filter_map(|path| path.split('/').next())
        .filter(|name| !name.starts_with('.'))
        .collect();
    assert_eq!(found, agreed.into_iter().collect());
}

#[test]
fn every_module_opens_with_what_it_promises() {
    let mut without = Vec::new();
    for folder in ["pipeline", "registry", "reports", "stages", "tests"] {
        visit(&root().join(folder), &mut |path, text| {
            if !text.starts_with("//!") {
                without.push(path.to_owned());
            }
        });
    }
    assert!(without.is_empty(), "no module header: {without:#?}");
}

/// Whatever is made or removed inside a home goes through `Place`, which follows no link.
#[test]
fn folders_of_a_home_are_made_and_removed_in_one_place_only() {
    // SQLite's own files stand in the home itself; a lock file stands beside its experiment.
    // `contents.rs` changes the files of a folder that was reached and that no link is in, and
    // `copy.rs` copies into a stage's own.
    let elsewhere = [
        "place.rs",
        "db.rs",
        "files.rs",
        "contents.rs",
        "copy.rs",
        "lockfile.rs",
        "testing.rs",
    ];
    let calls = [
        "fs::remove_",
        "create_dir",
        "fs::rename",
        "File::create",
        "fs::write",
        "fs::copy(",
        "OpenOptions",
        "set_permissions",
    ];
    let mut found = Vec::new();
    for folder in ["registry/src", "pipeline/src"] {
        visit(&root().join(folder), &mut |path, text| {
            let name = path.file_name().unwrap().to_string_lossy();
            let is_test = path.components().any(|part| part.as_os_str() == "tests");
            if elsewhere.contains(&&*name) || name.contains("tests") || is_test {
                return;
            }
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let lines = code
                .lines()
                .filter(|line| calls.iter().any(|call| line.contains(call)));
            found.extend(lines.map(|line| format!("{}: {}", path.display(), line.trim())));
        });
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Whatever goes to a terminal is cleaned on its way, which only one file knows how to do.
#[test]
fn the_program_prints_in_one_place_only() {
    let mut found = Vec::new();
    visit(&root().join("pipeline/cli"), &mut |path, text| {
        // The bench is a program of its own.
        if path.ends_with("output.rs") || path.ends_with("bench.rs") {
            return;
        }
        let is_way_out = |line: &&str| line.contains("stdout()") || line.contains("stderr()");
        let asks_only = |line: &str| line.contains("is_terminal") || line.contains("tcgetwinsize");
        let lines = text.lines().filter(is_way_out);
        let lines = lines.filter(|line| !asks_only(line));
        found.extend(lines.map(|line| format!("{}: {}", path.display(), line.trim())));
    });
    assert!(found.is_empty(), "{found:#?}");
}

/// What was captured is shown of a test that failed, and these pass.
#[test]
fn what_is_skipped_is_told_past_the_capture_and_once() {
    const INNER: &str = "TINYLM_TEST_SKIPS";
    if env::var_os(INNER).is_some() {
        for reason in ["no moon", "no stars\n", "no moon"] {
            skipped(reason);
        }
        return;
    }
    let mut inner = Command::new(env::current_exe().unwrap());
    inner.args([
        "--exact",
        "what_is_skipped_is_told_past_the_capture_and_once",
    ]);
    let output = inner.env(INNER, "1").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told, "SKIPPED: no moon\nSKIPPED: no stars\n");
}

/// A macro's words are captured, so that nobody reads them.
#[test]
fn no_test_tells_what_it_skips_by_a_macro() {
    let mut found = BTreeSet::new();
    for folder in ["pipeline", "registry", "reports", "stages", "tests"] {
        visit(&root().join(folder), &mut |path, text| {
            let is_bench = path.iter().any(|part| part == "benches");
            if !is_bench && text.contains("\"SKIPPED: ") {
                found.insert(path.to_owned());
            }
        });
    }
    let knowing = ["tests/skipped/mod.rs", "tests/tidy/main.rs"];
    assert_eq!(found, knowing.map(|file| root().join(file)).into());
}

fn visit(folder: &Path, look: &mut dyn FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, look);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn the_shipped_small_talk_is_what_its_generator_writes() {
    let mut awk = Command::new("awk");
    let shape = ["-v", "n=1000", "-v", "seed=1", "-v", "exchanges=3"];
    awk.args(shape).args(["-f", "data/chitchat.awk"]);
    let Ok(written) = awk.current_dir(root()).output() else {
        skipped("there is no awk");
        return;
    };
    assert!(written.status.success());
    let shipped = fs::read(root().join("data/chitchat.jsonl")).unwrap();
    let is_same = written.stdout == shipped;
    assert!(
        is_same,
        "data/chitchat.jsonl is not what the generator writes"
    );
}

#[test]
fn the_shipped_dialogues_keep_their_form_and_say_nothing_twice() {
    let mut seen = BTreeSet::new();
    for file in ["data/smalltalk.txt", "data/unseen.txt"] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        assert!(text.is_ascii(), "{file}");
        let text = text.strip_suffix('\n').unwrap();
        for dialogue in text.split("\n\n") {
            let lines: Vec<&str> = dialogue.lines().collect();
            let is_whole = [2, 4, 6].contains(&lines.len());
            assert!(is_whole, "{file}: {dialogue}");
            for (line, who) in lines.iter().zip(["User: ", "Assistant: "].iter().cycle()) {
                let said = line.strip_prefix(who);
                let is_plain = said.is_some_and(|said| !said.is_empty() && said == said.trim());
                assert!(is_plain, "{file}: `{line}`");
            }
            assert!(
                seen.insert(dialogue.to_lowercase()),
                "{file} repeats {dialogue}"
            );
        }
    }
    assert!(seen.len() > 2_000);
}

#[test]
fn the_quickstart_asks_what_its_model_was_not_told() {
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap();
    let told = words(&read("data/smalltalk.txt"));
    let experiment = read("experiments/quickstart.yaml");
    let (_, prompts) = experiment.split_once("prompts:\n").unwrap();
    let prompts: Vec<String> = prompts.split('"').skip(1).step_by(2).map(words).collect();
    assert!(prompts.len() >= 5, "{prompts:?}");
    for prompt in prompts {
        let asked = format!("\nuser {prompt}\n");
        assert!(!told.contains(&asked), "`{prompt}` is in the corpus");
    }
}

/// The words of each line, without case and marks.
fn words(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let words = line.split(|c: char| !c.is_alphanumeric() && c != '\'');
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        words.join(" ").to_lowercase()
    });
    lines.collect::<Vec<String>>().join("\n")
}
