//! Measurements of a model by different stages agree.

use serde_json::Value;

use crate::harness::Project;

/// Four models, each measured while it is trained and afterwards.
const MEASURED: &str = "\
name: measured
stages:
  rows:
    kind: download
    with:
      rows:
        - { prompt: \"how are you ?\", response: \"i am fine . and you ?\" }
        - { prompt: \"what is your name ?\", response: \"my name is tiny .\" }
        - { prompt: \"hi\", response: \"hello there\" }
  chat: { kind: normalize, inputs: [rows] }
  tokens: { kind: tokenizer, inputs: [chat], with: { vocab_size: 300 } }
  shards: { kind: binarize, inputs: { documents: chat, validation: chat, tokenizer: tokens } }
  model:
    kind: pretrain
    inputs: [shards]
    with:
      model: { preset: mini, d_model: 32, n_heads: 2, n_layers: 1, d_ff: 64, context: 64 }
      train: { steps: 3, lr: 1e-2, validate_every: 3 }
  perplexity:
    kind: evaluate
    inputs: { model: model, shards: shards }
    with: { continuations: 0 }
";

#[test]
fn a_loss_is_the_same_packed_or_not_in_batches_of_any_size_and_alone() {
    let project = Project::new();
    project.write("measured.yaml", MEASURED);
    let sweep = "run measured.yaml --sweep model.train.batching=packed,padded --sweep model.train.batch=2,3";
    project.tinylm(sweep).success();
    let runs = project.tinylm("runs --json").success();
    let runs: Vec<Value> = serde_json::from_str(&runs.stdout).unwrap();
    assert_eq!(runs.len(), 4);
    for run in runs {
        let metric = |name: &str| run["metrics"][name].as_f64().unwrap();
        // While training, rows are computed side by side; evaluation reads one document
        // after the other, with an engine of its own.
        let (trained, measured) = (
            metric("model.best_validation_loss"),
            metric("perplexity.loss"),
        );
        assert!(
            (trained - measured).abs() < 1e-4,
            "{trained} and {measured}"
        );
    }
}

#[test]
fn tasks_are_measured_beside_a_text_and_told_with_their_intervals() {
    let project = Project::new();
    let pair = |n: usize| {
        format!("{{\"sentence_good\": \"i am {n} .\", \"sentence_bad\": \"i are {n} .\"}}\n")
    };
    project.write("verbs.jsonl", &(0..20).map(pair).collect::<String>());
    let tasks = "  files: { kind: download, with: { path: verbs.jsonl } }
  skills:
    kind: evaluate
    inputs: { model: model, tasks: [files], training: [chat] }
";
    project.write("measured.yaml", &format!("{MEASURED}{tasks}"));
    let run = project.tinylm("run measured.yaml").success();
    let line = run.stdout.lines().find(|line| line.starts_with("skills: "));
    let line = line.unwrap_or_else(|| panic!("{run}"));
    assert!(line.starts_with("skills: minimal pairs "), "{run}");
    let report = project.tinylm("report @last -v").success();
    assert!(report.stdout.contains("skills by task"), "{report}");
    // Nothing of them stood in the training, and another file is another key.
    let lines = project.artifact("skills", "tasks.jsonl");
    assert_eq!(lines.lines().count(), 20);
    assert!(
        project
            .artifact("skills", "evaluation.json")
            .contains("\"in_training\": 0")
    );
    project.write("verbs.jsonl", &(0..21).map(pair).collect::<String>());
    let plan = project.tinylm("plan measured.yaml").success();
    assert!(plan.stdout.contains("pending  skills"), "{plan}");
}
