//! Training on NVIDIA's GPUs in the real binary, where the machine has none: `libcuda` is `nvidia/driver.cpp`.
//!
//! The unit tests hand the kernels to the emulator themselves; here the binary finds a driver, as on any machine that
//! has one, and all of `cuda.rs` is between. So the stories are a user's: what is taken without a word, what is said
//! when a card fails, where a run goes on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use insta::assert_snapshot;

use crate::{
    adapters::TAUGHT,
    harness::{Output, Project, signal, wait_until},
    skipped::skipped,
    training::{model, newest, project, stands_at},
};

const KERNELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/stages/model/src/gpu/kernels");
const DRIVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/nvidia/driver.cpp");

/// The folder that holds `libcuda`, or why there is none.
fn driver() -> Result<&'static Path, String> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let program = program();
        let digest = &blake3::hash(program.as_bytes()).to_hex()[..16];
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nvidia-{digest}"));
        if !folder.join("libcuda.so").exists() {
            compile(&program, &folder)?;
        }
        Ok(folder)
    });
    folder.as_deref().map_err(String::clone)
}

/// All kernels as the emulator runs them, a table of them, and the driver.
fn program() -> String {
    let read = |name: &str| fs::read_to_string(Path::new(KERNELS).join(name)).unwrap();
    // What is compiled, in its order, stands where it is compiled for GPUs.
    let build = read("build.py");
    let (_, listed) = build.split_once("SOURCES = [").unwrap();
    let (listed, _) = listed.split_once(']').unwrap();
    let listed = listed.split('"').skip(1).step_by(2);
    let text: String = ["emulator.h"].into_iter().chain(listed).map(read).collect();
    let is_code =
        |line: &&str| !line.starts_with("#include \"") && !line.starts_with("#pragma once");
    let mut program: String = text
        .lines()
        .filter(is_code)
        .map(|line| format!("{line}\n"))
        .collect();
    let named = text.lines().filter_map(|line| {
        let line = line.strip_prefix("PAIRED_").unwrap_or(line);
        line.strip_prefix("KERNEL ")?.split('(').next()
    });
    let rows: String = named
        .map(|name| format!("  emulator::Caller<{name}>::named(\"{name}\"),\n"))
        .collect();
    program += &format!("emulator::Kernel emulator_kernels[] = {{\n{rows}}};\n");
    program + &fs::read_to_string(DRIVER).unwrap()
}

fn compile(program: &str, folder: &Path) -> Result<(), String> {
    let made = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let source = made.path().join("libcuda.cpp");
    fs::write(&source, program).unwrap();
    let said = Command::new("c++")
        .args([
            "-std=c++17",
            "-O2",
            "-shared",
            "-fPIC",
            "-ffp-contract=off",
            "-o",
        ])
        .args([&made.path().join("libcuda.so"), &source])
        .output()
        .map_err(|error| format!("no C++ compiler: c++: {error}"))?;
    assert!(
        said.status.success(),
        "{}",
        String::from_utf8_lossy(&said.stderr)
    );
    // Another process may be at it: a rename is whole.
    match fs::rename(made.keep(), folder) {
        Err(error) if !folder.join("libcuda.so").exists() => {
            panic!("{}: {error}", folder.display())
        }
        _ => Ok(()),
    }
}

/// A command on a machine with NVIDIA's GPUs.
fn with_gpus(project: &Project, args: &str, driver: &Path) -> Command {
    let words: Vec<&str> = args.split_whitespace().collect();
    let mut command = project.command(&words);
    command.env("LD_LIBRARY_PATH", driver);
    command.env("TINYLM_CUBLASLT", "none");
    command
}

fn on_gpus(project: &Project, args: &str, driver: &Path) -> Output {
    project.output(&mut with_gpus(project, args, driver))
}

/// GPUs for a story, and why there are none where no compiler is.
fn gpus() -> Option<&'static Path> {
    if !cfg!(target_os = "linux") {
        skipped("a driver is found by the loader of Linux");
        return None;
    }
    driver().map_err(|why| skipped(&why)).ok()
}

#[test]
fn a_training_on_a_gpu_that_is_killed_goes_on_to_the_same_bytes_and_speaks_there() {
    let Some(driver) = gpus() else { return };
    let train = "steps: 24, validate_every: 12";
    let whole = project(train, "");
    let doctor = on_gpus(&whole, "doctor", driver);
    let found = "Emulated GPU, sm_90a, own products, 1.1 GB: `--device cuda:0` trains on it";
    assert!(doctor.stdout.contains(found), "{doctor}");
    let ran = on_gpus(&whole, "run train.yaml --device cuda -v", driver).success();
    let trains = "model: trains on Emulated GPU, sm_90a, own products";
    assert!(ran.stderr.contains(trains), "{ran}");

    let killed = project(train, "checkpoint_every: 1, keep_checkpoints: 2");
    let mut command = with_gpus(&killed, "run train.yaml --device cuda", driver);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_until("a checkpoint", || newest(&killed) >= Some(3));
    signal(child.id(), "KILL");
    killed.wait(child).failure(-9);
    assert!(newest(&killed) < Some(24), "it was killed on the way");
    // Without a word on what it ran on.
    let resumed = on_gpus(&killed, "resume @last -v", driver).success();
    assert!(resumed.stderr.contains(trains), "{resumed}");
    assert_eq!(model(&killed), model(&whole));
    on_gpus(&killed, "verify @last --stage model", driver).success();

    let say = |device: &str| {
        let args = format!("sample @last/model -p hello --temperature 0 -n 8 --device {device}");
        on_gpus(&whole, &args, driver).success().stdout
    };
    assert_eq!(say("cuda"), say("cpu"));
}

#[test]
fn four_gpus_make_the_bytes_of_one() {
    let Some(driver) = gpus() else { return };
    let train = "steps: 6, validate_every: 6, leaves: 4";
    let [one, four] = ["cuda:0", "cuda:0,1,2,3"].map(|device| {
        let project = project(train, "");
        project.replace(
            "train.yaml",
            "batch: 4, micro_batch: 2",
            "batch: 8, micro_batch: 2",
        );
        let args = format!("run train.yaml --device {device}");
        let mut command = with_gpus(&project, &args, driver);
        project.output(command.env("NVIDIA_GPUS", "4")).success();
        model(&project)
    });
    assert_eq!(one, four);
}

/// The others are given the base, which no step tells of.
#[test]
fn an_adapter_is_trained_by_two_gpus_to_the_bytes_of_one() {
    let Some(driver) = gpus() else { return };
    let taught = TAUGHT.replace(
        "steps: 60, batch: 2",
        "steps: 4, batch: 2, micro_batch: 1, leaves: 2, batching: padded",
    );
    let [one, two] = ["cuda:0", "cuda:0,1"].map(|device| {
        let project = Project::new();
        project.write("taught.yaml", &taught);
        let args = format!("run taught.yaml --until taught --device {device}");
        let mut command = with_gpus(&project, &args, driver);
        project.output(command.env("NVIDIA_GPUS", "2")).success();
        stands_at(&project, "taught")
    });
    assert_eq!(one, two);
}

/// A run that a card ends, and what is said of it.
fn ended(project: &Project, driver: &Path, (fault, value): (&str, &str)) -> String {
    let mut command = with_gpus(project, "run train.yaml --device cuda", driver);
    project.output(command.env(fault, value)).failure(1).stderr
}

#[test]
fn what_a_card_fails_with_is_told_and_the_run_goes_on_elsewhere() {
    let Some(driver) = gpus() else { return };
    let project = project("steps: 24, validate_every: 12", "checkpoint_every: 1");
    // Too little by the estimate, and too little where that was wrong.
    let told = ended(&project, driver, ("NVIDIA_TAKEN", "1073000000"));
    assert!(
        told.contains("of memory, and 0 MB are free on `cuda:0`"),
        "{told}"
    );
    assert!(told.contains("help: end what else uses that GPU"), "{told}");
    let told = ended(&project, driver, ("NVIDIA_FULL_AT", "400000"));
    let smaller =
        "CUDA_ERROR_OUT_OF_MEMORY: the GPU has too little free memory; set a smaller `micro_batch`";
    assert!(told.contains(smaller), "{told}");

    let told = ended(&project, driver, ("NVIDIA_LOST_AFTER", "1500"));
    let goes_on = "the run goes on from its last checkpoint, with `--device cpu` too";
    assert!(
        told.contains("CUDA_ERROR_LAUNCH_FAILED") && told.contains(goes_on),
        "{told}"
    );
    let kept = newest(&project);
    assert!(Some(1) < kept && kept < Some(24), "{kept:?}: {told}");
    let resumed = project.tinylm("resume @last --device cpu -v").success();
    let left = "left: the last digits may differ";
    assert!(resumed.stderr.contains(left), "{resumed}");
}

#[test]
fn a_card_that_cannot_train_is_refused_before_anything_runs() {
    let Some(driver) = gpus() else { return };
    let project = project("steps: 4", "");
    let refused = |device: &str, (what, value): (&str, &str)| {
        let mut command = with_gpus(
            &project,
            &format!("run train.yaml --device {device}"),
            driver,
        );
        let output = project.output(command.env(what, value)).failure(2);
        output.stderr.lines().next().unwrap_or_default().to_owned()
    };
    assert_snapshot!(refused("cuda", ("NVIDIA_CAPABILITY", "75")), @"error: `cuda:0` cannot be used: GPU 0 has compute capability 7.5, and tinylm needs 8.0 (Ampere, 2020) or newer");
    assert_snapshot!(refused("cuda:1", ("NVIDIA_GPUS", "1")), @"error: `cuda:1` cannot be used: there is no GPU 1: the driver shows 1");
    assert_snapshot!(refused("cuda", ("NVIDIA_GPUS", "0")), @"error: `cuda:0` cannot be used: the NVIDIA driver does not start: CUDA_ERROR_NO_DEVICE: the driver shows no GPU; see `nvidia-smi` and CUDA_VISIBLE_DEVICES");
    // What is newer than all that was compiled for is left to its driver.
    let mut doctor = with_gpus(&project, "doctor", driver);
    let doctor = project.output(doctor.env("NVIDIA_CAPABILITY", "120"));
    assert!(
        doctor.stdout.contains("Emulated GPU, ptx, own products"),
        "{doctor}"
    );
}

#[test]
fn auto_takes_a_gpu_that_computes_what_the_processor_does() {
    let Some(driver) = gpus() else { return };
    let project = project("steps: 4", "");
    let trained = |setting: &str, (what, value): (&str, &str)| {
        let args = format!("run train.yaml -v -S model.train.lr={setting}");
        let mut command = with_gpus(&project, &args, driver);
        project.output(command.env(what, value)).success().stderr
    };
    let on_the_gpu = "model: trains on Emulated GPU, sm_90a, own products";
    let told = trained("1e-3", ("NVIDIA_GPUS", "1"));
    assert!(told.contains(on_the_gpu), "{told}");
    // What was found computes it again: a processor would come close.
    let verified = on_gpus(&project, "verify @last --stage model", driver).success();
    assert!(verified.stdout.contains("1 same"), "{verified}");
    // Where all is made nobody asks a driver, which takes a while to start.
    let told = trained("1e-3", ("NVIDIA_CRASHES", "1"));
    assert!(!told.contains("GPU"), "{told}");

    let all_the_same = "the processor computes; `--device cuda` takes the GPU all the same";
    let faults = [
        (
            "NVIDIA_WITHOUT",
            "adam",
            "Emulated GPU is not taken: in f32, in step 2 of a small model, its loss is",
        ),
        (
            "NVIDIA_CAPABILITY",
            "75",
            "GPU 0 has compute capability 7.5",
        ),
        ("NVIDIA_CRASHES", "1", "trying the GPU ended with signal: 6"),
    ];
    for (idx, (what, value, why)) in faults.into_iter().enumerate() {
        let told = trained(&format!("{}e-3", idx + 2), (what, value));
        assert!(told.contains(why) && told.contains(all_the_same), "{told}");
        assert!(!told.contains("trains on"), "{told}");
    }
    // A driver without a card is nothing to talk about.
    let told = trained("9e-3", ("NVIDIA_GPUS", "0"));
    assert!(!told.contains("GPU"), "{told}");
}
