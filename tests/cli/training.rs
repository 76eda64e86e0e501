//! Training in the real binary: whatever ends it, going on makes the same bytes.

use std::{fs, path::PathBuf};

use crate::harness::{Project, signal, wait_until};

/// A model that trains in a second, from shipped dialogues.
fn project(train: &str, watch: &str) -> Project {
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
fn newest(project: &Project) -> Option<u64> {
    let attempts = fs::read_dir(project.path(".tinylm/work")).ok()?.flatten();
    let folders = attempts.filter_map(|key| fs::read_dir(key.path().join("checkpoints")).ok());
    let names = folders.flat_map(|folder| folder.flatten().map(|entry| entry.file_name()));
    let steps = names.filter_map(|name| name.to_str()?.strip_prefix("step-")?.parse().ok());
    steps.max()
}

/// Where the artifact stands in the store, which is its digest.
fn model(project: &Project) -> PathBuf {
    let folder = project.artifact_folder("model");
    folder
        .strip_prefix(project.path(".tinylm"))
        .unwrap()
        .to_owned()
}

#[test]
fn a_training_killed_in_several_epochs_makes_the_bytes_of_one_that_was_not() {
    let train = "steps: 96, validate_every: 32";
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
    assert!(newest(&killed) < Some(96), "it was killed on the way");
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
