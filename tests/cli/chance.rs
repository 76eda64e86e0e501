//! A difference and what chance explains of it: seeds and documents, each by itself.

use serde_json::Value;

use crate::{harness::Project, server::Server};

/// Two rates, of which one learns next to nothing, by three seeds, on numbers in words.
fn rates_by_seeds() -> Project {
    let project = rates();
    project.tinylm("run rates.yaml").success();
    project
}

fn rates() -> Project {
    let project = Project::new();
    let digits = ["one", "two", "three", "four", "five", "six", "seven"];
    let said = |n: usize| {
        let (a, b, c) = (digits[n % 7], digits[n / 7 % 7], digits[n / 49 % 7]);
        format!("User: {a} {b} {c} ?\nAssistant: {c} and {b} and {a} .\n")
    };
    let told: Vec<String> = (0..200).map(said).collect();
    project.write("told.txt", &told.join("\n"));
    project.write(
        "rates.yaml",
        "\
name: rates
sweep: { model.train.lr: [1e-5, 1e-2], seed: [1, 2, 3] }
stages:
  data: { kind: download, with: { path: told.txt } }
  chat: { kind: normalize, inputs: [data] }
  tokens: { kind: tokenizer, inputs: [chat], with: { vocab_size: 280 } }
  shards:
    kind: binarize
    inputs: { documents: chat, tokenizer: tokens }
    with: { validation: 0.3 }
  model:
    kind: pretrain
    inputs: [shards]
    with:
      model: { preset: mini, d_model: 16, n_heads: 2, n_layers: 1, d_ff: 32, context: 64 }
      train: { steps: 8, batch: 4, validate_every: 0 }
  perplexity:
    kind: evaluate
    inputs: { model: model, shards: shards }
    with: { continuations: 0 }
",
    );
    project
}

#[test]
fn seeds_and_documents_are_told_apart_and_each_has_its_interval() {
    let project = rates_by_seeds();
    let report = project.tinylm("report --sweep @last").success();
    for told in [
        "Seeds  runs that differ only in their seed are one group",
        "\n  A–C   lr=",
        "\n  D–F   lr=",
        "better than A–C by",
        "more than seeds",
        "(3 seeds, in pairs)",
        "Documents  the same ones, drawn again in pairs",
        "more than the choice of documents",
    ] {
        assert!(report.stdout.contains(told), "{told}\n{report}");
    }
    assert!(!report.stdout.contains("no more than"), "{report}");
    for line in report.stdout.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let json = project.tinylm("report --sweep @last --json").success();
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    let noise = &json["noise"];
    assert_eq!(
        noise["groups"][1]["seeds"],
        serde_json::json!(["1", "2", "3"])
    );
    let documents = &noise["documents"][0];
    assert_eq!(documents["n_runs"], serde_json::json!([3, 3]));
    let lines = project.artifact("perplexity", "documents.jsonl");
    assert_eq!(documents["n_documents"], lines.lines().count());
    let csv = project.tinylm("report --sweep @last --csv").success();
    let heading = csv.stdout.lines().next().unwrap();
    for column in [
        ",group,",
        ",perplexity.loss.mean,",
        "perplexity.loss.documents.low",
    ] {
        assert!(heading.contains(column), "{heading}");
    }
    let markdown = project.tinylm("report --sweep @last --markdown").success();
    assert!(
        markdown.stdout.contains("more than seeds explain"),
        "{markdown}"
    );
    project
        .tinylm("report --sweep @last --html page.html")
        .success();
    assert!(
        project
            .read("page.html")
            .contains("more than seeds explain")
    );
    let server = Server::start(&project, &["ui", "--port", "0"]);
    let page = server.get("/sweep/@last").body;
    for told in [
        "more than seeds explain",
        "more than the choice of documents",
    ] {
        assert!(page.contains(told), "{told}");
    }
}

/// Tokens differ, the text does not: the difference is then one of bits per byte.
#[test]
fn documents_are_paired_under_another_tokenizer_too() {
    let project = rates();
    let sweep = "run rates.yaml -S model.train.lr=1e-2 -S seed=1 --sweep tokens.vocab_size=270,300";
    project.tinylm(sweep).success();
    let report = project.tinylm("report --sweep @last").success();
    assert!(report.stdout.contains(" bits per byte, "), "{report}");
    assert!(!report.stdout.contains("nats per token"), "{report}");
    let lines = project.artifact("perplexity", "documents.jsonl");
    let n = format!("({} documents)", lines.lines().count());
    assert!(
        report.stdout.replace("\n           ", "").contains(&n),
        "{report}"
    );
}

#[test]
fn a_run_stands_for_all_its_seeds_where_that_is_asked_for() {
    let project = rates_by_seeds();
    let runs = project.tinylm("runs --json").success();
    let runs: Vec<Value> = serde_json::from_str(&runs.stdout).unwrap();
    let name = |idx: usize| runs[idx]["name"].as_str().unwrap();
    // Newest first: the last of one rate, the last of the other.
    let (good, bad) = (name(0), name(3));
    let two = project
        .tinylm(&format!("report --compare {bad} {good}"))
        .success();
    assert!(two.stdout.contains("2 runs side by side"), "{two}");
    assert!(two.stdout.contains("better than A by"), "{two}");
    assert!(
        two.stdout.contains("what another seed would change"),
        "{two}"
    );
    let six = project
        .tinylm(&format!("report --seeds --compare {bad} {good}"))
        .success();
    assert!(six.stdout.contains("6 runs side by side"), "{six}");
    assert!(six.stdout.contains("(3 seeds, in pairs)"), "{six}");
    let one = project.tinylm(&format!("report --seeds {good}")).success();
    assert!(one.stdout.contains("3 runs side by side"), "{one}");
    assert!(one.stdout.contains("\n  A–C       3 "), "{one}");
    // A rate of its own has no kin.
    project
        .tinylm("run rates.yaml -S seed=4 -S model.train.lr=1e-3")
        .success();
    let alone = project.tinylm("report --seeds").failure(2);
    assert!(
        alone.stderr.contains("no other finished run differs from"),
        "{alone}"
    );
    // The same seed once more is no other seed, and found again it is the same run.
    project
        .tinylm("run rates.yaml -S seed=1 -S model.train.lr=1e-2")
        .success();
    let again = project.tinylm(&format!("report --seeds {good}")).success();
    assert!(again.stdout.contains("3 runs side by side"), "{again}");
}
