//! The schema, held against every mistake in an experiment file that is told at its line.
//!
//! Which mistakes those are is read out of the tests that pin their messages, so a new message wants a row here: a file
//! with that mistake alone, and whether a schema can know it.

use std::{collections::BTreeSet, fs};

use crate::{harness::Project, listings::checker, skipped::skipped};

const TESTS: [&str; 2] = [
    include_str!("mistakes.rs"),
    include_str!("../../pipeline/src/spec/tests/messages.rs"),
];

/// What a schema says to a mistake.
enum Schema {
    Refuses,
    /// It cannot know, for this reason.
    Takes(&'static str),
}
use Schema::{Refuses, Takes};

/// Fills any role.
const OWN: &str = "  own: { kind: command, with: { run: [x], outputs: [y] } }\n";

/// A file with a stage beside one that is right.
fn stage(text: &str) -> String {
    format!("stages:\n{OWN}  {text}\n")
}

/// A file with a line at the top.
fn top(text: &str) -> String {
    format!("{text}\nstages:\n{OWN}")
}

fn model(model: &str) -> String {
    let with = format!("with: {{ train: {{ steps: 1 }}, model: {{ preset: mini, {model} }} }}");
    stage(&format!("b: {{ kind: pretrain, inputs: [own], {with} }}"))
}

fn training(train: &str) -> String {
    let with = format!("with: {{ model: {{ preset: mini }}, train: {{ {train} }} }}");
    stage(&format!("b: {{ kind: pretrain, inputs: [own], {with} }}"))
}

/// Words of the message (of two catalogs, as they differ), a file with the mistake, and what a schema says to it.
fn mistakes() -> Vec<(&'static str, String, Schema)> {
    let name = Takes("which stages there are");
    let names = || Takes("which stages there are");
    let files = || Takes("which files there are");
    let kinds = || Takes("what only a kind can judge");
    let with = |kind: &str, with: &str| {
        let inputs = if kind == "download" || kind == "command" {
            ""
        } else {
            "inputs: [own], "
        };
        stage(&format!(
            "b: {{ kind: {kind}, {inputs}with: {{ {with} }} }}"
        ))
    };
    vec![
        // The file.
        ("the file is not UTF-8", top("name: caf\u{e9}"), Refuses),
        ("this is not valid YAML", "stages: {a: [}\n".into(), Refuses),
        ("tags mean nothing here", top("name: !tag x"), Refuses),
        ("is written twice", stage("own: { kind: command }"), Refuses),
        ("a name must be text", top("[a]: 1"), Refuses),
        ("a number must be finite", training("lr: .inf"), Refuses),
        ("must be a map with `stages`", "[1]\n".into(), Refuses),
        // Its head.
        ("an experiment has no key", top("nmae: x"), Refuses),
        ("`name` must be text", top("name: 12"), Refuses),
        ("`name` must not be empty", top("name: ''"), Refuses),
        ("`seed` must be a whole number", top("seed: -1"), Refuses),
        ("`seed` must be a whole number", top("seed: minus"), Refuses),
        ("`vars` must be a map", top("vars: [a]"), Refuses),
        ("`use` must be a map", top("use: x.yaml"), Refuses),
        ("must be a file's path", top("use: { a: 1 }"), Refuses),
        ("there is no file", top("use: { a: d.yaml }"), files()),
        ("`sweep` must be a map", top("sweep: [1]"), Refuses),
        ("must be a list of values", top("sweep: { x: 3 }"), Refuses),
        ("has no values", top("sweep: { seed: [] }"), Refuses),
        ("`headline`", top("headline: nothing"), Refuses),
        ("`headline`", top("headline: nobody.loss"), names()),
        ("`without` must be a list", top("without: [3]"), Refuses),
        ("which is no stage", top("without: [onw]"), name),
        ("`without` leaves no stage", top("without: [own]"), names()),
        (
            "cannot be swept",
            format!(
                "sweep: {{ without: [own, far] }}\n{}",
                stage("far: { kind: command, with: { run: [z], outputs: [y] } }")
            ),
            names(),
        ),
        (
            "would make the same runs",
            format!(
                "without: far\nsweep: {{ far.run: [[a], [b]] }}\n{}",
                stage("far: { kind: command, with: { run: [z], outputs: [y] } }")
            ),
            names(),
        ),
        // Its stages.
        ("`stages` must be a map", "stages: []\n".into(), Refuses),
        (
            "the experiment has no stages",
            "stages: {}\n".into(),
            Refuses,
        ),
        ("the experiment has no stages", "name: x\n".into(), Refuses),
        ("must be a map with a `kind`", stage("b: 1"), Refuses),
        ("must be a map with a `kind`", stage("b:"), Refuses),
        (
            "cannot be called",
            stage("a b: { kind: command, with: { run: [x], outputs: [y] } }"),
            Refuses,
        ),
        (
            "has an unknown key",
            stage("b: { kind: dedupe, inptus: [own], inputs: [own] }"),
            Refuses,
        ),
        ("has no `kind`", stage("b: { inputs: [own] }"), Refuses),
        (
            "the kind of stage",
            stage("b: { kind: [download] }"),
            Refuses,
        ),
        (
            "is of an unknown kind",
            stage("b: { kind: dedupr, inputs: [own] }"),
            Refuses,
        ),
        (
            "`retries` of stage",
            stage("b: { kind: dedupe, inputs: [own], retries: two }"),
            Refuses,
        ),
        (
            "`retries` of stage",
            stage("b: { kind: dedupe, inputs: [own], retries: -1 }"),
            Refuses,
        ),
        (
            "must be a duration",
            stage("b: { kind: dedupe, inputs: [own], timeout: 10 parsecs }"),
            Refuses,
        ),
        (
            "must be a duration",
            stage("b: { kind: dedupe, inputs: [own], timeout: 0 }"),
            Refuses,
        ),
        (
            "asks for a resource",
            stage("b: { kind: dedupe, inputs: [own], resources: { cpu: 1 } }"),
            Refuses,
        ),
        (
            "cannot be read",
            stage("b: { kind: dedupe, inputs: [own], resources: { memory: lots } }"),
            Refuses,
        ),
        (
            "cannot be read",
            stage("b: { kind: dedupe, inputs: [own], resources: { time: 4 lightyears } }"),
            Refuses,
        ),
        (
            "cannot be read",
            stage("b: { kind: dedupe, inputs: [own], resources: { nodes: 0 } }"),
            Refuses,
        ),
        // What they read.
        (
            "which nothing writes",
            stage("b: { kind: dedupe, inputs: [onw] }"),
            names(),
        ),
        (
            "in a circle",
            stage("b: { kind: dedupe, inputs: [c] }\n  c: { kind: dedupe, inputs: [b] }"),
            names(),
        ),
        (
            "reads itself",
            stage("b: { kind: dedupe, inputs: [b] }"),
            names(),
        ),
        (
            "reads nothing",
            stage("b: { kind: download, inputs: [own], with: { rows: [a] } }"),
            Refuses,
        ),
        (
            "must be a list of stages or a map",
            stage("b: { kind: dedupe, inputs: own }"),
            Refuses,
        ),
        (
            "an input of stage",
            stage("b: { kind: dedupe, inputs: [1, own] }"),
            Refuses,
        ),
        (
            "has no role",
            stage("b: { kind: dedupe, inputs: { document: own, documents: own } }"),
            Refuses,
        ),
        (
            "nothing fills the role",
            stage("b: { kind: dedupe }"),
            Refuses,
        ),
        (
            "nothing fills the role",
            stage("b: { kind: dedupe, inputs: [] }"),
            Refuses,
        ),
        (
            "nothing fills the role",
            stage("b: { kind: binarize, inputs: [own] }"),
            Refuses,
        ),
        (
            "nothing fills the role",
            stage("b: { kind: binarize, inputs: { documents: own } }"),
            Refuses,
        ),
        (
            "takes one stage, not 2",
            stage(
                "b: { kind: pretrain, inputs: [own, own], with: { model: { preset: mini }, train: {} } }",
            ),
            Refuses,
        ),
        (
            "takes shards",
            stage(
                "b: { kind: dedupe, inputs: [own] }\n  c: { kind: pretrain, inputs: [b], with: { model: { preset: mini }, train: {} } }",
            ),
            Takes("what a stage makes, by its name"),
        ),
        // Their settings.
        (
            "must be a map of settings",
            stage("b: { kind: dedupe, inputs: [own], with: [1] }"),
            Refuses,
        ),
        (
            "must be a map of settings",
            stage("b: { kind: pretrain, inputs: [own], with: { model: tiny, train: {} } }"),
            Refuses,
        ),
        ("has no setting", with("dedupe", "treshold: 0.8"), Refuses),
        (
            "has no `watch` setting",
            stage(
                "b: { kind: pretrain, inputs: [own], watch: { sample: [] }, with: { model: { preset: mini }, train: {} } }",
            ),
            Refuses,
        ),
        ("needs the setting", with("command", "run: [x]"), Refuses),
        (
            "exclude each other",
            with("download", "hub: a/b, url: 'http://x/y'"),
            Refuses,
        ),
        (
            "exclude each other",
            training("epochs: 1, steps: 2"),
            Refuses,
        ),
        ("must be a number", training("lr: fast"), Refuses),
        ("`train.batch`", training("batch: 0"), Refuses),
        ("`train.dropout`", training("dropout: 1.5"), Refuses),
        ("`train.epochs`", training("epochs: -1"), Refuses),
        ("`train.epochs`", training("epochs: 0"), Refuses),
        ("`train.clip`", training("clip: -1"), Refuses),
        ("`train.warmup`", training("warmup: -5"), Refuses),
        ("`train.warmup`", training("warmup: -5%"), Refuses),
        (
            "`train.warmup`",
            training("warmup: 150%"),
            Takes("what a share is of"),
        ),
        ("`train.floor`", training("floor: 3"), Takes("what `lr` is")),
        ("`d_model` must be", model("d_model: 0"), Refuses),
        ("`context` ", model("context: 1000000000"), Refuses),
        (
            "`timeout` of stage",
            stage("b: { kind: dedupe, inputs: [own], timeout: 0s }"),
            Refuses,
        ),
        (
            "`timeout` of stage",
            stage("b: { kind: dedupe, inputs: [own], timeout: 1.2.3s }"),
            Refuses,
        ),
        (
            "must be a number",
            with("dedupe", "threshold: null"),
            Refuses,
        ),
        ("or a share such as 30%", training("warmup: [30]"), Refuses),
        (
            "must be text",
            with("command", "run: [1], outputs: [y]"),
            Refuses,
        ),
        ("must be one of", with("dedupe", "method: exakt"), Refuses),
        (
            "must not be negative",
            with("tokenizer", "vocab_size: -4"),
            Refuses,
        ),
        (
            "must be at most 65535|can be learnt",
            with("tokenizer", "vocab_size: 100000"),
            Refuses,
        ),
        (
            "must be from 0 to 4096|must be from 1 to 2048",
            with("tokenizer", "sample_mb: 4096"),
            Refuses,
        ),
        ("must be above 0", with("dedupe", "threshold: 0"), Refuses),
        (
            "must be above 0|`train.lr` is 0",
            training("lr: 0"),
            Refuses,
        ),
        (
            "must be a multiple of",
            stage(
                "b: { kind: pretrain, inputs: [own], with: { train: {}, model: { preset: mini, d_model: 100, n_heads: 3 } } }",
            ),
            kinds(),
        ),
        (
            "exactly one of `hub`",
            with("download", "{}").replace("{ {} }", "{}"),
            kinds(),
        ),
        (
            "does not exist",
            with("download", "path: corpse.txt"),
            files(),
        ),
    ]
}

/// The first lines of all messages that point into an experiment file.
fn told() -> BTreeSet<&'static str> {
    let lines = TESTS.iter().flat_map(|text| {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines
            .windows(2)
            .map(|two| (two[0], two[1]))
            .collect::<Vec<_>>()
    });
    let messages = lines.filter_map(|(line, next)| {
        let message = line.strip_prefix("error: ")?;
        let place = next.strip_prefix("--> ")?;
        place.contains(".yaml:").then_some(message)
    });
    messages.collect()
}

fn says(words: &str, message: &str) -> bool {
    words.split('|').any(|words| message.contains(words))
}

#[test]
fn every_mistake_that_a_schema_can_know_is_refused_by_it_and_no_other() {
    let project = Project::new();
    let mistakes = mistakes();
    for message in told() {
        let is_here = mistakes.iter().any(|(words, ..)| says(words, message));
        assert!(is_here, "no file with this mistake: {message}");
    }
    for (idx, (words, text, _)) in mistakes.iter().enumerate() {
        // One of them is not UTF-8.
        let bytes = text.replace('\u{e9}', "\u{0}").into_bytes();
        let bytes: Vec<u8> = bytes
            .into_iter()
            .map(|byte| if byte == 0 { 0xe9 } else { byte })
            .collect();
        fs::write(project.path(&format!("{idx}.yaml")), bytes).unwrap();
        let refused = project.tinylm(&format!("plan {idx}.yaml")).failure(2);
        assert!(says(words, &refused.stderr), "{words}\n{text}\n{refused}");
    }
    let Some(checker) = checker(&project) else {
        skipped("there is no `check-jsonschema` (PyPI) to hold files against the schema");
        return;
    };
    let schema = project.tinylm("schema").success().stdout;
    project.write("schema.json", &schema);
    let line = format!("{checker} -o json --schemafile schema.json *.yaml");
    let said = project.output(&mut project.shell(&line)).stdout;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let refused =
        ["errors", "parse_errors"].map(|list| said[list].as_array().cloned().unwrap_or_default());
    let refused: BTreeSet<String> = refused
        .iter()
        .flatten()
        .map(|error| error["filename"].as_str().unwrap().to_owned())
        .collect();
    for (idx, (words, text, schema)) in mistakes.iter().enumerate() {
        let is_refused = refused.contains(&format!("{idx}.yaml"));
        match schema {
            Refuses => assert!(is_refused, "the schema takes a file: {words}\n{text}"),
            Takes(why) => assert!(
                !is_refused,
                "the schema knows {why}: {words}\n{text}\n{said}"
            ),
        }
    }
}

#[test]
fn a_file_that_is_right_for_a_reason_that_a_schema_might_miss_is_taken() {
    let project = Project::new();
    project.write(
        "base.yaml",
        &stage("b: { kind: dedupe, inputs: [own], with: { threshold: 0.5 } }"),
    );
    let files = [
        // Over another file, `null` takes away, and nothing need be said twice.
        "extends: base.yaml\nstages: { b: { with: { threshold: null } }, own: { with: { run: [z] } } }\n".to_owned(),
        "extends: base.yaml\nstages: { b: null }\n".to_owned(),
        "extends: base.yaml\n".to_owned(),
        top("vars: { n: 2, t: 90s }")
            + "  b: { kind: dedupe, inputs: [own], retries: \"${n}\", timeout: \"${t}\", with: { ngram: \"${n}\" } }\n",
        stage("\u{e4}\u{df}_1-x: { kind: dedupe, inputs: { documents: own }, timeout: 1h30m, retries: null }"),
        stage("b: { kind: dedupe, inputs: [own], timeout: .5h }"),
        stage("b: { kind: dedupe, inputs: [own], resources: { memory: 32G..128G, time: 4h..24h, cpus: 2 } }"),
        stage("b: { kind: dedupe, inputs: [own], timeout: 1.5, resources: { memory: 500 MB } }"),
        stage("b: { kind: binarize, inputs: { documents: [own], tokenizer: own }, with: { validation: { tail: 0.1 } } }"),
        stage("b: { kind: dedupe, inputs: [own], with: { partition: 4GB } }"),
        "sweep: { own.run: [[a], [b]] }\nstages: { own: { kind: command, with: { outputs: [y] } } }\n".to_owned(),
        top("headline: own.seconds\nseed: 7\nsweep: { seed: [1, 2] }"),
    ];
    for (idx, text) in files.iter().enumerate() {
        project.write(&format!("{idx}.yaml"), text);
        let plan = project.tinylm(&format!("plan {idx}.yaml"));
        assert_eq!(plan.code, Some(0), "{text}\n{plan}");
    }
    let Some(checker) = checker(&project) else {
        skipped("there is no `check-jsonschema` (PyPI) to hold files against the schema");
        return;
    };
    let schema = project.tinylm("schema").success().stdout;
    project.write("schema.json", &schema);
    let line = format!("{checker} --schemafile schema.json *.yaml");
    project.output(&mut project.shell(&line)).success();
}
