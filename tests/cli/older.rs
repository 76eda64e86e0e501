//! Homes that another version of tinylm wrote: an older one goes on, a newer one is left alone.

use std::{fs, path::Path};

use crate::harness::{Project, copy_folder};

/// The experiment that the home in `tests/fixtures/home-0.1.0` was made from.
const OLD: &str = "\
name: old
stages:
  text: { kind: download, with: { rows: [{ text: pear }, { text: apple }] } }
  sorted:
    kind: command
    inputs: [text]
    with:
      run: [sh, -c, \"sort '{in.text}/rows.jsonl' > '{out}/sorted.jsonl'\"]
      outputs: [sorted.jsonl]
  first:
    kind: command
    inputs: [sorted]
    with:
      run: [sh, -c, \"head -n 1 '{in.sorted}/sorted.jsonl' > '{out}/first.jsonl'\"]
      outputs: [first.jsonl]
";

/// A project whose home was written by the first version: key records and manifests without any
/// later field, a registry with the first schema, and files whose inodes and times are not what
/// the manifests say, since they have been copied.
///
/// Only a raised `REVISION` of `download` or `command` is a reason to write the fixture anew.
fn old_project() -> Project {
    let project = Project::new();
    project.write("old.yaml", OLD);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let home = project.path(".tinylm");
    copy_folder(&root.join("tests/fixtures/home-0.1.0"), &home);
    let history = fs::read_to_string(home.join("registry.sql")).unwrap();
    fs::remove_file(home.join("registry.sql")).unwrap();
    let registry = rusqlite::Connection::open(home.join("registry.sqlite")).unwrap();
    let schema = include_str!("../../registry/src/schema/1.sql");
    registry.execute_batch(schema).unwrap();
    registry.execute_batch(&history).unwrap();
    registry.pragma_update(None, "user_version", 1).unwrap();
    project
}

#[test]
fn an_older_home_is_migrated_and_nothing_runs_again() {
    let project = old_project();
    let plan = project.tinylm("plan old.yaml").success();
    insta::assert_snapshot!(plan, @"
    fresh    text
    fresh    sorted
    fresh    first
    `tinylm run old.yaml` has nothing to do.
    ");
    let run = project.tinylm("run old.yaml").success();
    assert_eq!(run.stdout.matches("from calm-fox-0001").count(), 3, "{run}");
    assert_eq!(project.outcomes(), "text hit, sorted hit, first hit");
    assert_eq!(
        project.artifact("first", "first.jsonl"),
        "{\"text\":\"apple\"}\n"
    );
    project.tinylm("cache verify").success();
}

#[test]
fn the_runs_of_an_older_registry_are_shown_compared_and_gone_on_with() {
    let project = old_project();
    let shown = project.tinylm("show calm-fox --json").success();
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["metrics"]["text.bytes"], 33.0, "{shown}");
    assert_eq!(shown["stages"].as_array().unwrap().len(), 3);
    project.tinylm("run old.yaml").success();
    project
        .tinylm("report --compare calm-fox bold-owl")
        .success();
    let found = project
        .tinylm_words(&["runs", "--where", "bytes = 33"])
        .success();
    assert_eq!(found.stdout.matches("  old  ").count(), 3, "{found}");
    // This one was killed before its last stage, which the other has made since.
    let resumed = project.tinylm("resume bold-owl").success();
    assert!(resumed.stdout.contains("bold-owl-0002: 3 hit"), "{resumed}");
    project.tinylm("rm calm-fox").success();
    let gc = project.tinylm("gc").success();
    assert!(
        !gc.stdout.contains("artifact"),
        "the others still need them: {gc}"
    );
}

#[test]
fn a_newer_home_record_or_registry_is_refused_and_left_as_it_is() {
    let project = Project::chain();
    project.tinylm("run chain.yaml").success();
    let refuses = |commands: &[&str]| {
        for command in commands {
            let output = project.tinylm(command).failure(3);
            assert!(
                output
                    .stderr
                    .contains("has format 9, and this tinylm knows up to"),
                "{output}"
            );
            assert!(
                output.stderr.contains("help: use the newer tinylm"),
                "{output}"
            );
            assert_eq!(output.stdout, "", "{command}");
        }
    };

    let version = project.read(".tinylm/version");
    project.write(".tinylm/version", "9\n");
    refuses(&[
        "plan chain.yaml",
        "run chain.yaml",
        "runs",
        "resume",
        "gc",
        "cache du",
        "cache verify",
    ]);
    project.write(".tinylm/version", &version);

    let shown = project.tinylm("show @last/sorted --json").success();
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    let (first, rest) = shown["stage"]["key"].as_str().unwrap().split_at(2);
    let record = format!(".tinylm/store/keys/{first}/{rest}.json");
    project.replace(&record, "\"version\": 1", "\"version\": 9");
    let newer = project.read(&record);
    refuses(&["plan chain.yaml", "gc", "gc --dry-run"]);
    let output = project.tinylm("run chain.yaml").failure(3);
    assert!(output.stderr.contains("stage `sorted` failed"), "{output}");
    assert!(
        output.stderr.contains("help: use the newer tinylm"),
        "{output}"
    );
    assert_eq!(project.read(&record), newer);
    project.replace(&record, "\"version\": 9", "\"version\": 1");
    project.tinylm("run chain.yaml").success();
    assert_eq!(project.outcomes(), "corpus hit, sorted hit, first hit");

    let registry = rusqlite::Connection::open(project.path(".tinylm/registry.sqlite")).unwrap();
    registry.pragma_update(None, "user_version", 9).unwrap();
    drop(registry);
    refuses(&["plan chain.yaml", "run chain.yaml", "runs", "resume", "gc"]);
}
