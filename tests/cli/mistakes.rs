//! The answers to mistakes that a person makes.

use std::fs;

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
     --> chain.yaml:5:19
      |
    5 |     with: { path: corpse.txt }
      |                   ^^^^^^^^^^ stage `corpus` reads it
      |
      = help: did you mean `corpus.txt`?
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
    let address = format!("`tinylm show {}/first`", project.last_run("name"));
    assert!(output.stderr.contains(&address), "{output}");
}

#[test]
fn a_failure_of_settings_says_to_edit_the_file_and_run_it_as_it_was_run() {
    let project = Project::new();
    project.write("a.jsonl", "{\"text\": \"hello there\"}\n");
    project.write(
        "few.yaml",
        "stages:
  data: { kind: download, with: { path: a.jsonl } }
  texts: { kind: normalize, inputs: [data] }
  tokens: { kind: tokenizer, inputs: [texts], with: { vocab_size: 300 } }
  shards:
    kind: binarize
    inputs: { documents: texts, tokenizer: tokens, validation: texts }
    with: { validation: 0.1 }
",
    );
    let run = "run few.yaml -S shards.validation=0.2";
    let output = project.tinylm(run).failure(1);
    let next = format!("; edit the file, then `tinylm {run}`\n");
    assert!(output.stdout.ends_with(&next), "{output}");
    let resumed = project.tinylm("resume @last").failure(1);
    let next = "; edit the file, then `tinylm run few.yaml`\n";
    assert!(resumed.stdout.ends_with(next), "{resumed}");
    // Nothing held back beside an official split is no contradiction.
    project
        .tinylm("run few.yaml -S shards.validation=0")
        .success();
}

#[test]
fn what_is_no_experiment_is_refused_in_a_moment_with_what_to_do() {
    let project = Project::new();
    fs::create_dir(project.path("folder.yaml")).unwrap();
    project.write("empty.yaml", "");
    project.write("deep.yaml", &format!("stages: {}", "[".repeat(100_000)));
    project.write("wide.yaml", &format!("stages: {}", "{a: ".repeat(100_000)));
    let doubled = |n: usize| format!("a{}: &a{} [*a{n}, *a{n}, *a{n}, *a{n}]\n", n + 1, n + 1);
    let bomb: String = (0..20).map(doubled).collect();
    project.write("bomb.yaml", &format!("a0: &a0 [x]\n{bomb}"));
    project.write("itself.yaml", "stages: &all { a: *all }\n");
    fs::write(
        project.path("bytes.yaml"),
        [0x89, b'P', b'N', b'G', 0, 0xff],
    )
    .unwrap();
    let said = [
        ("folder.yaml", "`folder.yaml` is a folder"),
        (".", "`.` is a folder"),
        ("empty.yaml", "`empty.yaml` is empty"),
        (
            "nothing.yaml",
            "`tinylm init nothing.yaml` writes one to begin with",
        ),
        ("deep.yaml", "this nests too deeply"),
        ("wide.yaml", "this nests too deeply"),
        ("bomb.yaml", "its aliases make it too large"),
        ("itself.yaml", "this alias stands inside what it names"),
        ("bytes.yaml", "the file is not UTF-8"),
        (
            "/dev/zero",
            "cannot read `/dev/zero`: it is a device, not a file",
        ),
    ];
    for (file, words) in said {
        let output = project.tinylm(&format!("run {file}")).failure(2);
        assert!(output.stderr.contains(words), "{file}: {output}");
    }
    assert!(!project.path(".tinylm").exists());
}

#[test]
fn ten_megabytes_of_mistakes_are_told_in_bounds() {
    let project = Project::new();
    let stage = |n: usize| {
        let text = "x".repeat(960);
        format!("  s{n}: {{ kind: download, inputs: [q{n}], with: {{ rows: [{text}] }} }}\n")
    };
    let stages: String = (0..10_000).map(stage).collect();
    project.write("big.yaml", &format!("stages:\n{stages}"));
    let output = project.tinylm("plan big.yaml").failure(2);
    assert_eq!(output.stderr.matches("error: ").count(), 1001);
    assert!(
        output.stderr.ends_with("error: and 19000 more mistakes\n"),
        "{}",
        &output.stderr[..400]
    );
}

#[test]
fn every_unknown_name_on_the_command_line_is_told_at_once() {
    let project = Project::chain();
    let output = project.tinylm("run chain.yaml --until sortde --force frist,sorted");
    assert_snapshot!(output.failure(2).stderr, @"
    error: `chain` has no stage `frist`
      help: did you mean `first`?

    error: `chain` has no stage `sortde`
      help: did you mean `sorted`?
    ");
    project.tinylm("run chain.yaml").success();
    let output = project.tinylm("rm nobody @lsat @last").failure(2);
    assert_snapshot!(output.stderr, @"
    error: no run is called `nobody`
      help: `tinylm runs` lists them

    error: no run is called `@lsat`
      help: did you mean `@last`?
    ");
    assert_eq!(project.last_run("status"), "done", "nothing was removed");
}

#[test]
fn a_wrong_condition_is_pointed_at() {
    let project = Project::chain();
    project.tinylm("run chain.yaml").success();
    let output = project.tinylm_words(&["runs", "--where", "status = done and sede > 3"]);
    assert_snapshot!(output.failure(2).stderr, @"
    error: no run has a field, setting or metric `sede`
     --> --where:1:19
      |
    1 | status = done and sede > 3
      |                   ^^^^
      |
      = help: did you mean `seed`?
    ");
    let nested = "(".repeat(50_000);
    let output = project
        .tinylm_words(&["runs", "--where", &nested])
        .failure(2);
    assert!(
        output.stderr.contains("this is nested too deeply"),
        "{output}"
    );
    let output = project.tinylm_words(&["runs", "--sort", "a b"]).failure(2);
    assert!(
        output.stderr.contains("setting or metric `a b`"),
        "{output}"
    );
}

#[test]
fn a_page_that_cannot_be_written_says_where_to() {
    let project = Project::chain();
    project.tinylm("run chain.yaml").success();
    let output = project
        .tinylm("report @last --html no/page.html")
        .failure(2);
    assert_snapshot!(output.stderr, @"
    error: cannot write `no/page.html`
      cause: No such file or directory (os error 2)
      help: name a file in a folder that exists and can be written to
    ");
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_named_and_not_waited_for() {
    let project = Project::new();
    project.write("extending.yaml", "extends: pipe.yaml\nstages: {}\n");
    project.write(
        "hub.yaml",
        "stages: { a: { kind: download, with: { hub: someone/else } } }\n",
    );
    project.write("model/model.safetensors", "");
    let made = project.output(&mut project.shell("mkfifo pipe.yaml hub.lock model/config.json"));
    made.success();
    let said = [
        ("plan pipe.yaml", "cannot read `pipe.yaml`"),
        ("plan extending.yaml", "cannot read `pipe.yaml`"),
        ("plan hub.yaml", "hub.lock`"),
        ("sample model -p hi", "model/config.json`"),
    ];
    for (words, place) in said {
        let line = format!("exec timeout -s KILL 20 tinylm {words}");
        let output = project.output(&mut project.shell(&line)).failure(2);
        let what = format!("{place}: it is a pipe, not a file");
        assert!(output.stderr.contains(&what), "{words}: {output}");
    }
}

#[test]
fn a_file_beyond_its_limit_is_an_error_with_its_path() {
    let project = Project::chain();
    let output = project.output(&mut project.shell("ulimit -f 0; exec tinylm run chain.yaml"));
    let output = output.failure(1);
    let failed = "error: stage `corpus` failed: `[ROOT]/.tinylm/work/";
    assert!(output.stderr.contains(failed), "{output}");
    let why = "File too large (os error 27)\n  help: raise the limit on files (`ulimit -f`)";
    assert!(output.stderr.contains(why), "{output}");
}

#[test]
fn documents_are_no_shards_and_the_file_says_where() {
    let project = Project::new();
    project.write(
        "x.yaml",
        "stages:
  rows: { kind: download, with: { rows: [{ text: hello }] } }
  text: { kind: normalize, inputs: [rows] }
  model:
    kind: pretrain
    inputs: [text]
    with: { model: { preset: mini }, train: { steps: 3, lr: 1e-3, batch: 4 } }
",
    );
    let output = project.tinylm("plan x.yaml").failure(2);
    assert_snapshot!(output.stderr, @"
    error: the role `shards` of stage `model` takes shards
     --> x.yaml:6:14
      |
    6 |     inputs: [text]
      |              ^^^^ `normalize` makes documents
      |
      = help: `shards`: the tokens it is trained on
    ");
}

#[test]
fn a_model_that_cannot_be_divided_is_pointed_at() {
    let project = Project::new();
    project.write(
        "x.yaml",
        "stages:
  own: { kind: command, with: { run: [x], outputs: [y] } }
  model:
    kind: pretrain
    inputs: [own]
    with:
      train: { steps: 3, lr: 1e-3, batch: 4 }
      model: { preset: mini, d_model: 100, n_heads: 3 }
",
    );
    let output = project.tinylm("plan x.yaml").failure(2);
    assert_snapshot!(output.stderr, @"
    error: stage `model`: `model`: `d_model` (100) must be a multiple of `n_heads` (3)
     --> x.yaml:8:7
      |
    8 |       model: { preset: mini, d_model: 100, n_heads: 3 }
      |       ^^^^^
    ");
}

#[test]
fn a_folder_without_a_quickstart_is_not_sent_to_one() {
    let project = Project::new();
    let output = project.tinylm("runs").failure(2);
    assert!(output.stderr.contains("`tinylm init`"), "{output}");
    project.write("experiments/quickstart.yaml", "");
    let output = project.tinylm("runs").failure(2);
    let words = "`tinylm run experiments/quickstart.yaml`";
    assert!(output.stderr.contains(words), "{output}");
}
