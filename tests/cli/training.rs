//! Training in the real binary: whatever ends it, going on makes the same bytes.

use std::{fs, path::PathBuf};

use insta::assert_snapshot;

use crate::{
    harness::{Output, Project, signal, wait_until},
    skipped::skipped,
};

/// A model that trains in a second, from shipped dialogues.
pub(crate) fn project(train: &str, watch: &str) -> Project {
    let project = Project::new();
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/data/dialogues.txt");
    project.write("corpus.txt", &fs::read_to_string(corpus).unwrap());
    project.write(
        "train.yaml",
        &format!(
            "name: train
stages:
  corpus: {{ kind: download, with: {{ path: corpus.txt }} }}
  chat: {{ kind: normalize, inputs: [corpus] }}
  tokens: {{ kind: tokenizer, inputs: [chat], with: {{ vocab_size: 300 }} }}
  shards: {{ kind: binarize, inputs: {{ documents: chat, tokenizer: tokens }}, with: {{ validation: 0.2 }} }}
  model:
    kind: pretrain
    inputs: {{ shards: shards }}
    with:
      model: {{ preset: mini, context: 64, d_model: 32, n_layers: 1, n_heads: 2 }}
      train: {{ batch: 4, micro_batch: 2, dropout: 0.1, {train} }}
    watch: {{ {watch} }}
"
        ),
    );
    project
}

/// The step of the newest checkpoint.
pub(crate) fn newest(project: &Project) -> Option<u64> {
    let attempts = fs::read_dir(project.path(".tinylm/work")).ok()?.flatten();
    let folders = attempts.filter_map(|key| fs::read_dir(key.path().join("checkpoints")).ok());
    let names = folders.flat_map(|folder| folder.flatten().map(|entry| entry.file_name()));
    let steps = names.filter_map(|name| name.to_str()?.strip_prefix("step-")?.parse().ok());
    steps.max()
}

/// Where a stage's artifact stands in the store, which is its digest.
pub(crate) fn stands_at(project: &Project, stage: &str) -> PathBuf {
    let folder = project.artifact_folder(stage);
    folder
        .strip_prefix(project.path(".tinylm"))
        .unwrap()
        .to_owned()
}

pub(crate) fn model(project: &Project) -> PathBuf {
    stands_at(project, "model")
}

#[test]
fn a_training_killed_in_several_epochs_makes_the_bytes_of_one_that_was_not() {
    let train = "steps: 288, validate_every: 32";
    let whole = project(train, "");
    whole.tinylm("run train.yaml --threads 1").success();

    let killed = project(train, "checkpoint_every: 1, keep_checkpoints: 2");
    let mut command = "run train.yaml --threads 2".to_owned();
    for step in [2, 9, 17, 40] {
        let child = killed.start(&command);
        // With a checkpoint after every step, most kills come in the middle of one.
        wait_until("a checkpoint", || newest(&killed) >= Some(step));
        signal(child.id(), "KILL");
        killed.wait(child).failure(-9);
        command = format!("resume @last --threads {}", 1 + step % 3);
    }
    assert!(newest(&killed) < Some(288), "it was killed on the way");
    killed.tinylm(&command).success();
    assert_eq!(model(&killed), model(&whole));
}

#[test]
fn ctrl_c_and_sigterm_save_a_checkpoint_to_go_on_from() {
    let project = project(
        "steps: 1000000, validate_every: 0",
        "checkpoint_minutes: 1000, log_every: 1",
    );
    let mut command = "run train.yaml";
    let mut before = None;
    for (name, code) in [("INT", 130), ("TERM", 143), ("INT", 130)] {
        let child = project.start(command);
        wait_until("a later step", || step_logged(&project) > before);
        signal(child.id(), name);
        project.wait(child).failure(code);
        assert!(newest(&project) > before, "{name} saved nothing");
        (before, command) = (newest(&project), "resume @last");
    }
}

/// The last step whose loss is in the registry. Looks only, and only once the registry is set up:
/// opening a file that is not there yet would make one, and stand in the way of the run.
fn step_logged(project: &Project) -> Option<u64> {
    let registry = project.path(".tinylm/registry.sqlite");
    if !registry.with_extension("sqlite-wal").exists() {
        return None;
    }
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let registry = rusqlite::Connection::open_with_flags(registry, flags).ok()?;
    let query = "select max(step) from metrics where name = 'loss'";
    let step: Option<i64> = registry.query_row(query, [], |row| row.get(0)).ok()?;
    step.and_then(|step| step.try_into().ok())
}

#[test]
fn a_plan_says_what_a_model_is_made_of_and_takes() {
    let project = project("steps: 4", "");
    project.replace("train.yaml", "micro_batch: 2, ", "");
    // The vocabulary that the tokenizer is told to learn, and as many tokens as the text must have.
    let before = project.tinylm("plan train.yaml -v").success();
    assert!(before.stdout.contains("  about 4 steps, "), "{before}");
    assert!(
        before.stdout.contains("a guess until a training"),
        "{before}"
    );

    project.tinylm("run train.yaml --until shards").success();
    let table = || {
        let plan = project.tinylm("plan train.yaml -v").success().stdout;
        let (_, table) = plan.split_once("\nmodel: ").unwrap();
        let (table, length) = table.split_once(" at a time\n").unwrap();
        (table.to_owned(), length.to_owned())
    };
    assert_snapshot!(table().0, @"
    34,208 parameters
      embed.weight                 303 x 32              9,696
      positions.weight              64 x 32              2,048
      blocks.*.norm1.weight              32                 32
      blocks.*.norm1.bias                32                 32
      blocks.*.qkv.weight           96 x 32              3,072
      blocks.*.qkv.bias                  96                 96
      blocks.*.proj.weight          32 x 32              1,024
      blocks.*.proj.bias                 32                 32
      blocks.*.norm2.weight              32                 32
      blocks.*.norm2.bias                32                 32
      blocks.*.up.weight           128 x 32              4,096
      blocks.*.up.bias                  128                128
      blocks.*.down.weight         32 x 128              4,096
      blocks.*.down.bias                 32                 32
      norm.weight                        32                 32
      norm.bias                          32                 32
      head.weight                  303 x 32              9,696
      0.1 MFLOP a token; about 29 MB of memory for 4 rows of 64
    ");
    // As many rows as the run would choose, which is not always all of a batch.
    project.replace("train.yaml", "batch: 4, ", "batch: 1000, ");
    let (cost, _) = table();
    let figures = cost.lines().next_back().unwrap();
    assert_snapshot!(figures, @"  0.1 MFLOP a token; about 59 MB of memory for 125 rows of 64");
}

#[test]
fn a_plan_counts_what_a_training_then_takes_and_the_next_one_knows_its_speed() {
    let project = project("epochs: 3", "");
    project.tinylm("run train.yaml --until shards").success();
    let plan = project.tinylm("plan train.yaml -v").success().stdout;
    project.tinylm("run train.yaml").success();
    let last = project.tinylm("runs --json -n 1").success();
    let last: serde_json::Value = serde_json::from_str(&last.stdout).unwrap();
    let told = |name: &str| {
        last[0]["metrics"][format!("model.{name}")]
            .as_f64()
            .unwrap()
    };
    let (steps, tokens) = (told("steps"), told("tokens"));
    let told = format!("  {steps} steps, 3 epochs, ");
    let (_, rest) = plan
        .split_once(&told)
        .unwrap_or_else(|| panic!("{told}\n{plan}"));
    let planned: f64 = rest
        .split_once(' ')
        .unwrap()
        .0
        .replace(',', "")
        .parse()
        .unwrap();
    assert_eq!(planned, tokens);
    // What the process took at most, of which the program and its tokenizer are the greater part here.
    let (_, memory) = plan.split_once("; about ").unwrap();
    let (memory, _) = memory.split_once(" MB of memory").unwrap();
    let memory: f64 = memory.parse().unwrap();
    let show = project.tinylm("show @last/model --json").success().stdout;
    let show: serde_json::Value = serde_json::from_str(&show).unwrap();
    let took = show["execution"]["peak_memory_bytes"].as_f64().unwrap() / 1e6;
    assert!((0.6..1.6).contains(&(took / memory)), "{took} of {memory}");
    let next = project
        .tinylm("plan train.yaml -v -S model.train.lr=3e-3")
        .success();
    assert!(next.stdout.contains(" here, as "), "{next}");
    assert!(next.stdout.contains("/model did "), "{next}");

    // One in other numbers says nothing of it.
    let other = "plan train.yaml -v -S model.train.precision=bf16";
    let other = project.tinylm(other).success();
    let guess = "a guess until a training in bf16 has been here";
    assert!(other.stdout.contains(guess), "{other}");

    // A program is told the same.
    let json = "plan train.yaml --json -S model.train.lr=3e-3";
    let json = project.tinylm(json).success();
    let stages: Vec<serde_json::Value> = serde_json::from_str(&json.stdout).unwrap();
    let of = |name: &str| {
        let stage = stages.iter().find(|stage| stage["stage"] == name);
        stage.unwrap()["forecast"].clone()
    };
    let model = of("model");
    assert_eq!(
        [&model["steps"], &model["tokens"], &model["epochs"]].map(|n| n.as_f64().unwrap()),
        [steps, tokens, 3.0]
    );
    assert_eq!(model["is_counted"], true);
    assert!(model["seconds"].as_f64().unwrap() > 0.0, "{model}");
    let because = model["because"].as_str().unwrap();
    assert!(next.stdout.contains(because), "{model}");
    assert!(of("shards").is_null());
}

/// A command that takes a program that plays a GPU for one.
fn on_any_gpu(project: &Project, args: &str) -> std::process::Command {
    let words: Vec<&str> = args.split_whitespace().collect();
    let mut command = project.command(&words);
    command.env("TINYLM_SOFTWARE_GPU", "1");
    command
}

/// Lavapipe, which runs the kernels for GPUs of every maker on this machine's processor.
#[test]
fn a_training_on_any_gpu_that_is_killed_goes_on_to_the_same_bytes_and_speaks_there() {
    let told = |project: &Project, args: &str| -> Output {
        project
            .output(&mut on_any_gpu(project, &format!("{args} --device gpu -v")))
            .success()
    };
    let train = "steps: 40, validate_every: 20";
    let whole = project(train, "");
    let doctor = whole.output(&mut on_any_gpu(&whole, "doctor")).success();
    if doctor.stdout.contains("neither Metal nor Vulkan shows one") {
        return skipped("nothing here plays a GPU (Debian: mesa-vulkan-drivers libvulkan1)");
    }
    let words = "`--device gpu` trains on it";
    assert!(
        doctor.stdout.contains(words) && !doctor.stderr.contains("XDG"),
        "{doctor}"
    );
    let ran = told(&whole, "run train.yaml");
    let log = format!("{}{}", ran.stdout, ran.stderr);
    assert!(
        log.contains("trains on") && log.contains("Vulkan ") && log.contains(", own products"),
        "{log}"
    );

    let killed = project(train, "checkpoint_every: 1, keep_checkpoints: 2");
    let mut command = on_any_gpu(&killed, "run train.yaml --device gpu");
    let child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let child = child.spawn().unwrap();
    wait_until("a checkpoint", || newest(&killed) >= Some(5));
    signal(child.id(), "KILL");
    killed.wait(child).failure(-9);
    assert!(newest(&killed) < Some(40), "it was killed on the way");
    // Without a word on what it ran on.
    let resumed = killed
        .output(&mut on_any_gpu(&killed, "resume @last -v"))
        .success();
    assert!(resumed.to_string().contains("trains on"), "{resumed}");
    assert_eq!(model(&killed), model(&whole));
    killed
        .output(&mut on_any_gpu(&killed, "verify @last --stage model"))
        .success();

    let say = |device: &str| {
        let args = format!("sample @last/model -p hello --temperature 0 -n 8 --device {device}");
        whole
            .output(&mut on_any_gpu(&whole, &args))
            .success()
            .stdout
    };
    assert_eq!(say("gpu"), say("cpu"));
}

#[test]
fn a_gpu_with_f16_says_so_unless_it_is_told_to_go_without() {
    let project = project("steps: 4", "");
    let says_so = |f16: &str| {
        let mut doctor = on_any_gpu(&project, "doctor");
        let told = project.output(doctor.env("TINYLM_F16", f16)).success();
        told.stdout
            .contains("own products, f16 tiles to train in bf16")
    };
    if !says_so("1") {
        return skipped("nothing here plays a GPU that has f16");
    }
    assert!(!says_so("0"));
}

#[test]
fn a_program_that_plays_a_gpu_is_taken_only_by_who_says_so() {
    let project = project("steps: 4", "");
    if project
        .tinylm("doctor")
        .success()
        .stdout
        .contains("`--device gpu` trains on it")
    {
        return skipped("there is a real GPU");
    }
    let output = project.tinylm("run train.yaml --device gpu").failure(2);
    let start = "error: `gpu` cannot be used: ";
    assert!(output.stderr.starts_with(start), "{output}");
    if output.stderr.contains("neither Metal nor Vulkan shows one") {
        return skipped("nothing here plays a GPU (Debian: mesa-vulkan-drivers libvulkan1)");
    }
    let why = "is a program that plays a GPU; TINYLM_SOFTWARE_GPU=1 takes it";
    assert!(output.stderr.contains(why), "{output}");
}
