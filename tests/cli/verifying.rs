//! A run made again: the same bytes, numbers close to it, or neither; and a run from elsewhere.

use std::fs;

use crate::harness::{Output, Project};

const TRAINING: &str = "
name: small
stages:
  corpus: { kind: download, with: { path: corpus.txt } }
  chat: { kind: normalize, inputs: [corpus], with: { format: lines } }
  tokens: { kind: tokenizer, inputs: [chat], with: { vocab_size: 300 } }
  shards: { kind: binarize, inputs: { documents: chat, tokenizer: tokens }, with: { validation: 0.2 } }
  base:
    kind: pretrain
    inputs: [shards]
    with:
      model: { preset: mini, context: 32, d_model: 32, n_layers: 1, n_heads: 2 }
      train: { batch: 4, steps: 30, lr: 0.003 }
  perplexity: { kind: evaluate, inputs: { model: base, shards: shards } }
";

fn project() -> Project {
    let project = Project::new();
    project.write("x.yaml", TRAINING);
    let line = |n: u32| format!("the {n}th line says {} and {}\n", n * 7 % 13, n % 5);
    project.write("corpus.txt", &(0..400).map(line).collect::<String>());
    project.tinylm("run x.yaml").success();
    project
}

/// The words of all stages, in their order; how many there are of each stands below them.
fn words(output: &Output) -> Vec<String> {
    let lines = output.stdout.lines().take_while(|line| !line.is_empty());
    let words = lines.map(|line| {
        line.split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    });
    words.collect()
}

#[test]
fn a_run_made_again_is_the_same_to_the_bit_and_leaves_no_trace() {
    let project = project();
    let before = project.tinylm("runs").success().stdout;
    let verified = project.tinylm("verify @last").success();
    let all = ["corpus", "chat", "tokens", "shards", "base", "perplexity"];
    assert_eq!(
        words(&verified),
        all.map(|stage| format!("same {stage}")),
        "{verified}"
    );
    assert_eq!(project.tinylm("runs").success().stdout, before);
    let left = fs::read_dir(project.path(".tinylm/store/staging")).unwrap();
    assert_eq!(left.count(), 0);
    let one = project.tinylm("verify @last --stage base").success();
    assert_eq!(words(&one), ["same base"], "{one}");
    let unknown = project.tinylm("verify @last --stage bass").failure(2);
    assert!(unknown.stderr.contains("has no stage `bass`"), "{unknown}");
}

#[test]
fn what_was_kept_in_a_folder_is_gone_on_with() {
    let project = project();
    project.tinylm("verify @last --in again").success();
    let again = project.tinylm("verify @last --in again -v").success();
    assert!(
        !again.stderr.contains("start "),
        "all of it is there: {again}"
    );
    assert_eq!(words(&again).len(), 6);
}

/// As if the machine of then had come to another model, whose numbers are so much larger.
fn with_other_numbers(project: &Project, factor: f64) {
    let registry = rusqlite::Connection::open(project.path(".tinylm/registry.sqlite")).unwrap();
    let change = format!(
        "UPDATE points SET value = value * {factor} WHERE series_id IN (SELECT id FROM series WHERE name LIKE '%loss'
           AND execution_id = (SELECT execution_id FROM stages WHERE name = 'base'))"
    );
    registry.execute(&change, []).unwrap();
    let other = "0".repeat(64);
    registry
        .execute(
            "UPDATE stages SET artifact = ?1 WHERE name = 'base'",
            [&other],
        )
        .unwrap();
    registry
        .execute(
            "UPDATE executions SET artifact = ?1 WHERE stage = 'base'",
            [&other],
        )
        .unwrap();
}

#[test]
fn other_bytes_are_close_if_their_numbers_are_and_differ_if_not() {
    let project = project();
    with_other_numbers(&project, 1.001);
    let close = project.tinylm("verify @last --stage base").success();
    assert_eq!(words(&close), ["close base"], "{close}");
    assert!(close.stdout.contains("parts at step"), "{close}");
    let strict = project
        .tinylm("verify @last --stage base --tolerance 0.0001")
        .failure(1);
    assert_eq!(words(&strict), ["differs base"], "{strict}");
    // What is made from it cannot be held against anything: what it read is not kept.
    let next = project.tinylm("verify @last --stage perplexity").failure(1);
    assert_eq!(words(&next), ["unmade perplexity"], "{next}");
    assert!(
        next.stdout.contains("what `base` made is not kept"),
        "{next}"
    );
    let json = project.tinylm("verify @last --stage base --json").success();
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["stages"][0]["verdict"], "close");
}

#[test]
fn what_is_told_of_the_same_bytes_has_to_be_true() {
    let project = project();
    let registry = rusqlite::Connection::open(project.path(".tinylm/registry.sqlite")).unwrap();
    let forge = "UPDATE points SET value = 0.9 WHERE step = -1 AND series_id IN
        (SELECT id FROM series WHERE name = 'bits_per_byte')";
    assert_eq!(registry.execute(forge, []).unwrap(), 1);
    let forged = project.tinylm("verify @last --stage perplexity").failure(1);
    assert!(forged.stdout.contains("where 0.9 is recorded"), "{forged}");
    let itself = project.tinylm("verify @last --in .tinylm").failure(2);
    assert!(itself.stderr.contains("where it was made"), "{itself}");
}

#[test]
fn a_file_that_was_changed_is_said_to_be_so_and_spoils_no_other_stage() {
    let project = project();
    project.write("corpus.txt", "other\nlines\n");
    let changed = project.tinylm("verify @last").failure(1);
    assert_eq!(words(&changed)[0], "unmade corpus", "{changed}");
    assert!(changed.stdout.contains("not what it was"), "{changed}");
    assert!(
        words(&changed)[1..]
            .iter()
            .all(|line| line.starts_with("same ")),
        "{changed}"
    );
}

#[test]
fn a_run_that_was_handed_over_is_verified_where_it_came_to() {
    let ours = project();
    for (pack, corpus) in [
        ("pack @last -o run.tar.zst", "unmade"),
        ("pack @last --digests -o run.tar.zst", "unmade"),
    ] {
        ours.tinylm(pack).success();
        let theirs = Project::new();
        fs::copy(ours.path("run.tar.zst"), theirs.path("run.tar.zst")).unwrap();
        // Where it was made is nowhere here.
        fs::rename(ours.path("corpus.txt"), ours.path("away.txt")).unwrap();
        theirs.tinylm("unpack run.tar.zst").success();
        let verified = theirs.tinylm("verify @last").failure(1);
        let told = words(&verified);
        assert_eq!(told[0], format!("{corpus} corpus"), "{verified}");
        let rest = if pack.contains("--digests") {
            "unmade "
        } else {
            "same "
        };
        assert!(
            told[1..].iter().all(|line| line.starts_with(rest)),
            "{verified}"
        );
        fs::rename(ours.path("away.txt"), ours.path("corpus.txt")).unwrap();
    }
    // With the file where it was, all follows from digests alone.
    let theirs = Project::new();
    fs::copy(ours.path("run.tar.zst"), theirs.path("run.tar.zst")).unwrap();
    theirs.tinylm("unpack run.tar.zst").success();
    let verified = theirs.tinylm("verify @last").success();
    assert!(
        words(&verified)
            .iter()
            .all(|line| line.starts_with("same ")),
        "{verified}"
    );
}

#[test]
fn a_file_of_digests_is_held_against_a_run() {
    let project = project();
    let shown = project.tinylm("show @last --json").success();
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    let digest = |stage: &str| {
        let stages = shown["stages"].as_array().unwrap();
        let found = stages.iter().find(|one| one["name"] == stage).unwrap();
        found["artifact"].as_str().unwrap()[..8].to_owned()
    };
    let entry = |experiment: &str, base: &str| {
        format!(
            "- experiment: {experiment}\n  of: two cores\n  stages: {{ shards: \"{}\", base: \"{base}\" }}\n",
            digest("shards")
        )
    };
    let verify = |text: &str| {
        project.write("digests.yaml", text);
        project.tinylm("verify @last --against digests.yaml")
    };
    let good = entry("small", &digest("base"));
    let same = verify(&format!("{}{good}", entry("small", "00000000"))).success();
    assert_eq!(words(&same), ["same shards", "same base"], "{same}");
    let other = verify(&entry("small", "00000000")).failure(1);
    assert_eq!(words(&other), ["same shards", "differs base"], "{other}");
    assert!(
        other.stdout.contains("00000000 is published (two cores)"),
        "{other}"
    );
    let shouted = verify(
        &good
            .to_uppercase()
            .replace("- EXPERIMENT: SMALL", "- experiment: small")
            .replace("OF:", "of:")
            .replace("STAGES:", "stages:")
            .replace("SHARDS:", "shards:")
            .replace("BASE:", "base:"),
    )
    .success();
    assert_eq!(words(&shouted), ["same shards", "same base"], "{shouted}");
    let none = verify(&entry("large", "00000000")).failure(2);
    assert!(none.stderr.contains("says nothing of `small`"), "{none}");
    let short = verify(&entry("small", "0000")).failure(2);
    assert!(short.stderr.contains("is no digest"), "{short}");
}
