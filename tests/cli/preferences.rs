//! Pairs of answers, from rows to a model that prefers the chosen ones.

use std::fmt::Write;

use serde_json::Value;

use crate::harness::Project;

const STAGES: &str = "\
name: polite
stages:
  rows: { kind: download, with: { path: pairs.jsonl } }
  pairs: { kind: normalize, inputs: [rows], with: { format: preferences } }
  clean: { kind: dedupe, inputs: [pairs] }
  tokens: { kind: tokenizer, inputs: [clean], with: { vocab_size: 300 } }
  shards: { kind: binarize, inputs: { documents: clean, tokenizer: tokens }, with: { validation: 0.25 } }
  talk: { kind: download, with: { path: talk.jsonl } }
  said: { kind: normalize, inputs: [talk] }
  first: { kind: binarize, inputs: { documents: said, tokenizer: tokens } }
  base:
    kind: pretrain
    inputs: [first]
    with:
      model: { preset: llama-tiny, d_model: 32, n_heads: 4, n_kv_heads: 2, n_layers: 1, d_ff: 64, context: 64 }
      train: { steps: 20, batch: 4, lr: 1e-2, validate_every: 0 }
  polite:
    kind: finetune
    inputs: { shards: shards, model: base }
    with: { objective: dpo, beta: 0.5, train: { steps: 30, batch: 4, lr: 2e-3, validate_every: 10 } }
  thin:
    kind: finetune
    inputs: { shards: shards, model: base }
    with: { objective: dpo, adapter: { rank: 4 }, train: { steps: 4, batch: 4, lr: 1e-2, validate_every: 2 } }
";

const NAMES: [&str; 12] = [
    "ann", "bob", "cem", "dan", "eve", "fay", "gus", "hal", "ida", "jon", "kim", "leo",
];

fn answers(name: &str) -> [String; 2] {
    [format!("please ask {name} ."), format!("go away {name} !")]
}

/// In each of the three forms that TRL reads.
fn pairs() -> String {
    let mut rows = String::new();
    for (idx, name) in [
        "ann", "bob", "cem", "dan", "eve", "fay", "gus", "hal", "ida", "jon", "kim", "leo",
    ]
    .iter()
    .enumerate()
    {
        let (ask, good, bad) = (
            format!("who is {name} ?"),
            format!("please ask {name} ."),
            format!("go away {name} !"),
        );
        let message =
            |role: &str, text: &str| format!(r#"{{"role": "{role}", "content": "{text}"}}"#);
        let (user, good_turn, bad_turn) = (
            message("user", &ask),
            message("assistant", &good),
            message("assistant", &bad),
        );
        let row = match idx % 3 {
            0 => format!(r#"{{"prompt": "{ask}", "chosen": "{good}", "rejected": "{bad}"}}"#),
            1 => format!(
                r#"{{"prompt": [{user}], "chosen": [{good_turn}], "rejected": [{bad_turn}]}}"#
            ),
            _ => {
                format!(r#"{{"chosen": [{user}, {good_turn}], "rejected": [{user}, {bad_turn}]}}"#)
            }
        };
        writeln!(rows, "{row}").unwrap();
    }
    rows
}

#[test]
fn a_model_learns_to_prefer_answers_of_pairs_that_it_has_not_seen() {
    let project = Project::new();
    project.write("pairs.jsonl", &pairs());
    let talk = NAMES.map(|name| {
        let [good, bad] = answers(name);
        let of =
            |answer| format!("{{\"prompt\": \"who is {name} ?\", \"response\": \"{answer}\"}}\n");
        of(good) + &of(bad)
    });
    project.write("talk.jsonl", &talk.concat());
    project.write("polite.yaml", STAGES);
    project.tinylm("run polite.yaml").success();
    let told = project.tinylm("show @last/pairs").success();
    assert!(told.stdout.contains("rejected: go away"), "{told}");
    let report = project.tinylm("report @last --json").success();
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    let curves = report["curves"].as_array().unwrap();
    let of = |stage: &str, metric: &str| -> Vec<f64> {
        let curve = curves
            .iter()
            .find(|c| c["stage"] == stage && c["metric"] == metric);
        let points = curve.unwrap_or_else(|| panic!("{curves:?}"))["points"]
            .as_array()
            .unwrap();
        points
            .iter()
            .map(|point| point["value"].as_f64().unwrap())
            .collect()
    };
    for stage in ["polite", "thin"] {
        let accuracies = of(stage, "validation_rewards/accuracies");
        assert_eq!(accuracies.last(), Some(&1.0), "{stage}: {accuracies:?}");
        let margins = of(stage, "validation_rewards/margins");
        assert!(margins.first() < margins.last(), "{stage}: {margins:?}");
        let losses = of(stage, "loss");
        assert!((losses[0] - 2.0_f64.ln()).abs() < 1e-6, "{losses:?}");
    }
    let learnt = project
        .tinylm("run polite.yaml -S polite.objective=likelihood -S polite.beta=null")
        .failure(1);
    insta::assert_snapshot!(learnt.stderr, @"
    start    polite

    error: stage `polite` failed: the shards hold pairs of answers, of which one is worse and not to be learnt
      help: `finetune` learns from them with `objective: dpo`
    ");
}
