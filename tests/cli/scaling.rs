//! A law of loss, fitted to a sweep: told, asked about a run before it is made, and held against it.

use insta::assert_snapshot;
use serde_json::Value;

use crate::harness::Project;

/// Nine trainings of a moment each on a story that ships.
fn swept() -> Project {
    let project = Project::new();
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/data/lighthouse.txt");
    let text = "name: small
seed: 3
sweep:
  model.model.d_model: [8, 16, 32]
  model.train.steps: [8, 16, 32]
stages:
  corpus: { kind: download, with: { path: CORPUS } }
  story: { kind: normalize, inputs: [corpus], with: { format: text } }
  tokens: { kind: tokenizer, inputs: [story], with: { vocab_size: 280, template: plain } }
  shards: { kind: binarize, inputs: { documents: story, tokenizer: tokens }, with: { validation: { tail: 0.2 } } }
  model:
    kind: pretrain
    inputs: [shards]
    with:
      model: { preset: mini, context: 32, d_model: 16, d_ff: null, n_layers: 1, n_heads: 2 }
      train: { batch: 2, batching: windows, steps: 8, lr: 5e-3, validate_every: 0 }
  perplexity: { kind: evaluate, inputs: { model: model, shards: shards }, with: { continuations: 0 } }
";
    project.write("small.yaml", &text.replace("CORPUS", corpus));
    project.tinylm("run small.yaml --threads 1").success();
    project
}

fn told(project: &Project, args: &str) -> Value {
    let report = project.tinylm(&format!("report {args} --json")).success();
    serde_json::from_str(&report.stdout).unwrap()
}

#[test]
fn a_law_fitted_to_a_sweep_is_held_against_a_run_that_came_later() {
    let project = swept();
    let of_sweep = format!("--sweep {} --fit", project.newest());
    let law = told(&project, &of_sweep);
    assert_eq!(law["metric"], "perplexity.loss");
    assert_eq!(law["runs"].as_array().unwrap().len(), 9);

    // Asked, then made, then compared.
    let shown = project.tinylm(&format!(
        "report {of_sweep} --predict weights=9k,tokens=3_000 --budget 1e8"
    ));
    let shown = shown.success();
    for words in [
        "L = E + A / N^a + B / D^b",
        "Predicted",
        "1.00e8",
        "Best size for a budget",
    ] {
        assert!(shown.stdout.contains(words), "{words} in {shown}");
    }
    for line in shown.stdout.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let longer =
        "run small.yaml --threads 1 --sweep model.train.steps=48 --sweep model.model.d_model=32";
    project.tinylm(longer).success();
    let later = project.newest();
    let after = told(&project, &format!("{of_sweep} --predict {later}"));
    let predicted = &after["predictions"][0];
    let (weights, tokens) = (&predicted["weights"], &predicted["tokens"]);
    let before = told(
        &project,
        &format!("{of_sweep} --predict weights={weights},tokens={tokens}"),
    );
    assert_eq!(before["predictions"][0]["loss"], predicted["loss"]);
    assert_eq!(after["law"], law["law"], "what is predicted is not fitted");
    let run = told(&project, &later);
    let finals = run["finals"].as_array().unwrap();
    let is_loss = |last: &&Value| last["stage"] == "perplexity" && last["metric"] == "loss";
    let loss = &finals.iter().find(is_loss).unwrap()["value"];
    assert_eq!(&predicted["came_out"], loss);
    assert!(predicted["error"].is_f64());

    let csv = project
        .tinylm(&format!("report {of_sweep} --predict {later} --csv"))
        .success();
    assert_eq!(csv.stdout.lines().count(), 11, "{csv}");
    let page = project.tinylm(&format!(
        "report {of_sweep} --predict {later} --html law.html"
    ));
    assert_eq!(page.success().stdout, "wrote law.html\n");
    assert!(
        project
            .read("law.html")
            .contains("<svg class=\"plot\" viewBox")
    );
    let markdown = project
        .tinylm(&format!("report {of_sweep} --markdown"))
        .success();
    assert!(markdown.stdout.contains("### The law"), "{markdown}");
}

#[test]
fn what_cannot_be_fitted_is_refused_with_what_to_run() {
    let project = Project::chain();
    project.tinylm("run chain.yaml").success();
    let chain = project.newest();
    let refused = project.tinylm("report --fit").failure(2);
    assert_snapshot!(refused.stderr.replace(&chain, "[RUN]"), @"
    error: a law of five parameters takes six runs or more, of three sizes and three numbers of tokens; no run here tells its weights, tokens and loss
      left out: [RUN]: no `evaluate` and no validation tells its loss
      help: run a sweep of five sizes by four trainings, such as `experiments/scaling.yaml`, and name one of its runs: `tinylm report --sweep RUN --fit`
    ");
    assert_snapshot!(project.tinylm("report --fit --predict weights=5").failure(2).stderr, @"
    error: `weights=5` says no tokens
      help: write `--predict weights=7e6,tokens=2e7`
    ");
    let alone = project.tinylm("report --predict weights=5").failure(2);
    assert!(alone.stderr.contains("--fit"), "{alone}");
}
