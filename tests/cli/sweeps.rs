//! One file, several runs: what is planned of them, what a stop leaves, what is told at the end.

use insta::assert_snapshot;

use crate::harness::{Project, signal};

/// Three stages, of which the last two differ from point to point and the middle one waits for `go`.
fn three() -> Project {
    let project = Project::new();
    let here = project.path("").display().to_string();
    project.write("corpus.txt", "one\n");
    let text = "name: three
vars: { n: 0 }
stages:
  corpus: { kind: download, with: { path: corpus.txt } }
  slow:
    kind: command
    inputs: [corpus]
    with:
      run: [sh, -c, \"touch HEREstarted; while [ ! -f HEREgo ]; do sleep 0.02; done; echo ${n} > '{out}/x'\"]
      outputs: [x]
  after: { kind: command, inputs: [slow], with: { run: [cp, '{in.slow}/x', '{out}/y'], outputs: [y] } }
";
    project.write("three.yaml", &text.replace("HERE", &here));
    project
}

const SWEEP: &str = "three.yaml --sweep vars.n=1,2,3";

#[test]
fn a_plan_says_once_what_all_points_share() {
    let project = three();
    let planned = project.tinylm(&format!("plan {SWEEP}")).success();
    assert_snapshot!(planned, @"
    dirty    corpus  never run

    1 of 3: vars.n=1
    pending  slow    reads `corpus`
    pending  after   reads `slow`

    2 of 3: vars.n=2
    pending  slow    reads `corpus`
    pending  after   reads `slow`

    3 of 3: vars.n=3
    pending  slow    reads `corpus`
    pending  after   reads `slow`

    `tinylm run three.yaml --sweep vars.n=1,2,3` would run 1 stage, then at most 6 that read it.
    ");
}

#[test]
fn a_sweep_that_is_stopped_is_recorded_whole_and_goes_on_as_one() {
    let project = three();
    let child = project.start(&format!("run {SWEEP}"));
    project.wait_for("started");
    signal(child.id(), "INT");
    let stopped = project.wait(child).failure(130);
    let first = stopped.stdout.split(": 1 made").next().unwrap();
    let first = first.lines().last().unwrap();
    let told = format!("3 of 3 are not done; `tinylm resume {first} --sweep` goes on with them\n");
    assert!(stopped.stdout.ends_with(&told), "{stopped}");
    assert_eq!(statuses(&project), ["cancelled"; 3]);
    // A run that never began is no result.
    assert!(
        project
            .tinylm("show @last")
            .success()
            .stdout
            .starts_with(first)
    );

    project.write("go", "");
    let resumed = project.tinylm(&format!("resume {first} --sweep")).success();
    assert!(
        resumed.stdout.contains("`tinylm report --sweep"),
        "{resumed}"
    );
    assert_eq!(statuses(&project), ["done"; 3]);
    assert_eq!(project.artifact("after", "y"), "3\n");
    let nothing = project.tinylm("resume").success();
    assert_eq!(nothing.stdout, "every run is done: nothing is left to do\n");
}

#[test]
fn a_sweep_ends_with_its_runs_below_each_other_at_eighty_columns() {
    let project = three();
    project.write("go", "");
    let ran = project
        .tinylm(&format!("run {SWEEP} --tag a-long-word"))
        .success();
    let table = ran.stdout.rsplit("\n\n").next().unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 5, "{ran}");
    for (idx, line) in lines[1..4].iter().enumerate() {
        assert!(line.contains(&format!("n={}", idx + 1)), "{ran}");
    }
    let found = project
        .tinylm_words(&["runs", "--where", "vars.n = 2", "--json"])
        .success();
    let found: Vec<serde_json::Value> = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(found.len(), 1);
    let runs = project.tinylm("runs").success();
    for line in runs.stdout.lines() {
        assert!(line.chars().count() <= 80, "{runs}");
    }
    assert!(!runs.stdout.contains("started"), "{runs}");
    let whole = project.tinylm("runs -v").success();
    assert!(whole.stdout.contains("started"), "{whole}");
}

fn statuses(project: &Project) -> Vec<String> {
    let runs = project.tinylm("runs --json").success();
    let runs: Vec<serde_json::Value> = serde_json::from_str(&runs.stdout).unwrap();
    let statuses = runs
        .iter()
        .map(|run| run["status"].as_str().unwrap().to_owned());
    statuses.collect()
}
