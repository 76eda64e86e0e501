//! Stages side by side, stages that fail, and stages that take too long.

use tinylm_registry::{Home, Lock};

use crate::harness::{Project, processes_with};

/// A stage that needs another one to be running at the same time.
fn meets(name: &str, other: &str) -> String {
    format!(
        "  {name}:
    kind: command
    with:
      run: [sh, -c, \"touch $OLDPWD/{name}; n=0; while [ ! -f $OLDPWD/{other} ]; do n=$((n+1)); [ $n -lt 600 ] || exit 1; sleep 0.05; done; touch '{{out}}/x'\"]
      outputs: [x]
"
    )
}

#[test]
fn independent_stages_run_side_by_side() {
    let project = Project::new();
    let here = project.path("").display().to_string();
    let stages = format!("stages:\n{}{}", meets("a", "b"), meets("b", "a"));
    project.write("both.yaml", &stages.replace("$OLDPWD/", &here));
    project.tinylm("run both.yaml -j 2").success();
    assert_eq!(project.outcomes(), "a made, b made");
}

#[test]
fn heavy_stages_take_turns_on_a_device_and_others_do_not_wait() {
    let project = Project::new();
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/experiments/smoke/quickstart.yaml"
    );
    let device = Home::at(project.path("home")).device_lock("cpu");
    let lock = Lock::try_exclusive(&device, "a model of somebody else").unwrap();
    let run = project.start_saying(&format!("run {file} --home home --until model"), "run.log");
    project.wait_for_words("run.log", "model: waiting for a model of somebody else");
    let before = project.read("run.log");
    assert!(!before.contains("shards: waiting"), "{before}");
    drop(lock);
    project.wait(run).success();
}

const BRANCHES: &str = "stages:
  bad: { kind: command, with: { run: [sh, -c, 'exit 1'], outputs: [x] } }
  after: { kind: command, inputs: [bad], with: { run: [touch, '{out}/x'], outputs: [x] } }
  good: { kind: command, with: { run: [touch, '{out}/x'], outputs: [x] } }
  fine: { kind: command, inputs: [good], with: { run: [touch, '{out}/y'], outputs: [y] } }
";

#[test]
fn keep_going_finishes_siblings_and_skips_what_depends_on_the_failure() {
    let project = Project::new();
    project.write("branches.yaml", BRANCHES);
    project
        .tinylm("run branches.yaml -j 1 --keep-going")
        .failure(1);
    let mut outcomes: Vec<String> = project.outcomes().split(", ").map(str::to_owned).collect();
    outcomes.sort();
    assert_eq!(
        outcomes,
        ["after skipped", "bad failed", "fine made", "good made"]
    );
}

#[test]
fn without_keep_going_nothing_new_is_started() {
    let project = Project::new();
    project.write("branches.yaml", BRANCHES);
    project.tinylm("run branches.yaml -j 1").failure(1);
    assert!(
        project.outcomes().contains("fine skipped"),
        "{}",
        project.outcomes()
    );
}

#[test]
fn a_stage_is_tried_again_as_often_as_it_may() {
    let project = Project::new();
    let count = project.path("count").display().to_string();
    project.write(
        "flaky.yaml",
        &format!(
            "stages:
  flaky:
    kind: command
    retries: 2
    with:
      run: [sh, -c, \"echo x >> {count}; [ $(wc -l < {count}) -ge 2 ] && touch '{{out}}/x'\"]
      outputs: [x]
"
        ),
    );
    let output = project.tinylm("run flaky.yaml").success();
    assert!(output.stderr.contains("trying again in 1 s"), "{output}");
    assert_eq!(project.read("count"), "x\nx\n");
}

#[test]
fn a_timeout_ends_everything_that_the_stage_started() {
    let project = Project::new();
    let mark = project.path("mark");
    let mark = mark.display();
    project.write(
        "slow.yaml",
        &format!(
            "stages:
  slow:
    kind: command
    timeout: 1s
    with:
      run: [sh, -c, \"trap '' TERM; (trap '' TERM; while :; do sleep 1; : {mark}; done) & while :; do sleep 1; : {mark}; done\"]
      outputs: [x]
"
        ),
    );
    let output = project.tinylm("run slow.yaml").failure(1);
    assert!(output.stderr.contains("its `timeout` of 1 s"), "{output}");
    assert_eq!(processes_with(&project.path("mark")), [0_u32; 0]);
}

#[test]
fn a_stage_killed_by_the_system_is_reported_as_that() {
    let project = Project::new();
    // The shell's parent is the stage's own process.
    project.write(
        "killed.yaml",
        "stages:
  killed: { kind: command, with: { run: [sh, -c, 'kill -9 $PPID; sleep 5'], outputs: [x] } }
",
    );
    let output = project.tinylm("run killed.yaml").failure(1);
    assert!(
        output.stderr.contains("killed by the system (signal 9)"),
        "{output}"
    );
    assert!(output.stderr.contains("memory"), "{output}");
    assert_eq!(project.outcomes(), "killed failed");
    assert_eq!(project.last_run("status"), "failed");
}

/// Two models at once would halve each other's threads while one of them only waits.
#[test]
fn heavy_stages_take_turns_with_all_threads_each() {
    let project = Project::new();
    project.write(
        "pair.yaml",
        "stages:
  data:   { kind: download, with: { rows: [one two three four, five six seven eight] } }
  text:   { kind: normalize, inputs: [data] }
  tokens: { kind: tokenizer, inputs: [text], with: { vocab_size: 256, template: plain } }
  shards: { kind: binarize, inputs: { documents: text, tokenizer: tokens }, with: { validation: 0 } }
  one:
    kind: pretrain
    inputs: [shards]
    with:
      model: { preset: mini, d_model: 16, n_heads: 1, n_layers: 1, d_ff: 16, context: 16 }
      train: { steps: 2, batch: 2, validate_every: 0 }
  two: { kind: pretrain, inputs: [shards], with: { model: { preset: mini, d_model: 16, n_heads: 1, n_layers: 1, d_ff: 16, context: 16 }, train: { steps: 3, batch: 2, validate_every: 0 } } }
",
    );
    project.tinylm("run pair.yaml -j 4 --threads 3").success();
    for stage in ["one", "two"] {
        let shown = project
            .tinylm(&format!("show @last/{stage} --json"))
            .success();
        let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
        assert_eq!(shown["execution"]["threads"], 3, "{shown}");
    }
}

#[test]
fn a_program_sees_what_it_asks_for_and_a_log_keeps_no_secret() {
    let project = Project::new();
    project.write(
        "env.yaml",
        "stages:
  plain: { kind: command, with: { run: [sh, -c, 'env > {out}/env'], outputs: [env] } }
  asked: { kind: command, with: { run: [sh, -c, 'echo $HF_TOKEN $OTHER $OWN_API_KEY; env > {out}/env'], outputs: [env], env: [HF_TOKEN, OTHER, OWN_API_KEY] } }
",
    );
    let mut run = project.command(&["run", "env.yaml"]);
    run.env("HF_TOKEN", "hf_verysecret")
        .env("OTHER", "not a secret")
        .env("OWN_API_KEY", "own_verysecret")
        .env("KAGGLE_KEY", "0123456789");
    project.output(&mut run).success();
    let seen = project.artifact("plain", "env");
    assert!(seen.contains("PATH="), "{seen}");
    for name in ["HF_TOKEN", "KAGGLE_KEY", "OTHER", "HF_HOME"] {
        assert!(!seen.contains(name), "{name}: {seen}");
    }
    let seen = project.artifact("asked", "env");
    assert!(seen.contains("HF_TOKEN=hf_verysecret"), "{seen}");
    assert!(!seen.contains("KAGGLE_KEY"), "{seen}");
    let shown = project.tinylm("show @last/asked").success();
    assert!(
        shown.stdout.contains("[secret] not a secret [secret]"),
        "{shown}"
    );
    assert!(!shown.to_string().contains("verysecret"), "{shown}");
}
