//! What a person is told when something they wrote is wrong.

use insta::assert_snapshot;

use crate::harness::Project;

#[test]
fn every_mistake_is_told_at_once_and_nothing_is_written() {
    let project = Project::new();
    project.write(
        "tiny.yaml",
        "stages:
  corpus: { kind: download, with: { pth: corpus.txt } }
  unique: { kind: dedupe, inputs: [corpsu] }
  model: { kind: pretrian, inputs: [unique] }
",
    );
    let output = project.tinylm("run tiny.yaml").failure(2);
    assert_snapshot!(output.stderr, @"
    error: stage `corpus`: `download` has no setting `pth`
     --> tiny.yaml:2:37
      |
    2 |   corpus: { kind: download, with: { pth: corpus.txt } }
      |                                     ^^^ unknown
      |
      = help: did you mean `path`?

    error: stage `unique` reads `corpsu`, which nothing writes
     --> tiny.yaml:3:36
      |
    3 |   unique: { kind: dedupe, inputs: [corpsu] }
      |                                    ^^^^^^ no stage has this name
      |
      = help: did you mean `corpus`?

    error: stage `model` is of an unknown kind `pretrian`
     --> tiny.yaml:4:18
      |
    4 |   model: { kind: pretrian, inputs: [unique] }
      |                  ^^^^^^^^ no kind has this name
      |
      = help: did you mean `pretrain`?
    ");
    assert!(!project.path(".tinylm").exists());
    assert_eq!(output.stdout, "");
}

#[test]
fn a_cycle_is_shown_with_its_lines() {
    let project = Project::new();
    project.write(
        "loop.yaml",
        "stages:
  a: { kind: command, inputs: [b], with: { run: ['true'], outputs: [x] } }
  b: { kind: command, inputs: [a], with: { run: ['true'], outputs: [x] } }
",
    );
    let output = project.tinylm("plan loop.yaml").failure(2);
    assert_snapshot!(output.stderr, @"
    error: stages read each other in a circle: `a` reads `b` reads `a`
     --> loop.yaml:2:32
      |
    2 |   a: { kind: command, inputs: [b], with: { run: ['true'], outputs: [x] } }
      |                                ^ `a` reads `b`
    3 |   b: { kind: command, inputs: [a], with: { run: ['true'], outputs: [x] } }
      |                                - `b` reads `a`
    ");
}

#[test]
fn names_on_the_command_line_are_hinted_at_too() {
    let project = Project::chain();
    let output = project.tinylm("run chain.yaml --until sortde").failure(2);
    assert_snapshot!(output.stderr, @"
    error: `chain` has no stage `sortde`
      help: did you mean `sorted`?
    ");
    project.tinylm("run chain.yaml").success();
    let output = project.tinylm("show @last/frist").failure(2);
    assert!(output.stderr.contains("did you mean `first`?"), "{output}");
    let output = project
        .tinylm("run chain.yaml -S sorted.otuputs=[x]")
        .failure(2);
    assert!(
        output.stderr.contains("did you mean `outputs`?"),
        "{output}"
    );
    let output = project.tinylm("run chian.yaml").failure(2);
    assert!(
        output.stderr.contains("did you mean `chain.yaml`?"),
        "{output}"
    );
}

#[test]
fn a_missing_local_file_is_named_before_anything_runs() {
    let project = Project::chain();
    project.replace("chain.yaml", "path: corpus.txt", "path: corpse.txt");
    let output = project.tinylm("run chain.yaml").failure(2);
    assert_snapshot!(output.stderr, @"
    error: `[ROOT]/corpse.txt` does not exist
      help: did you mean `corpus.txt`?
    ");
}

#[test]
fn a_failed_stage_says_what_happened_and_what_to_type_next() {
    let project = Project::chain();
    project.replace(
        "chain.yaml",
        "head -n 1",
        "echo on my way >&2; exit 3; head -n 1",
    );
    let output = project.tinylm("run chain.yaml").failure(1);
    let failed = "stage `first` failed: `sh` ended with exit status: 3";
    assert!(output.stderr.contains(failed), "{output}");
    let resume = format!("`tinylm resume {}`", project.last_run("name"));
    assert!(output.stdout.contains(&resume), "{output}");
    assert_eq!(project.outcomes(), "corpus made, sorted made, first failed");
    let shown = project.tinylm("show @last/first").success();
    assert!(shown.stdout.contains("on my way"), "{shown}");
}
