//! `gc` beside runs: neither sees the other's half-done work, and nothing needed is lost.

use std::process::Child;

use tinylm_registry::{Digest, Home, Lock};

use crate::harness::{Project, signal, wait_until};

/// The chain with a stage at its end that waits for the file `go`.
fn waiting() -> Project {
    let project = Project::chain();
    let here = project.path("").display().to_string();
    let slow = format!(
        "  slow:
    kind: command
    inputs: [first]
    with:
      run: [sh, -c, \"touch {here}started; while [ ! -f {here}go ]; do sleep 0.02; done; touch '{{out}}/x'\"]
      outputs: [x]
"
    );
    let chain = project.read("chain.yaml");
    project.write(
        "slow.yaml",
        &(chain.replace("name: chain", "name: slow") + &slow),
    );
    project
}

#[test]
fn gc_waits_for_the_run_under_way_by_name_and_takes_nothing_that_it_made() {
    let project = waiting();
    project.replace("chain.yaml", "sort '", "sort -r '");
    project.tinylm("run chain.yaml").success();
    let unneeded = project.artifact_folder("sorted");
    project.tinylm("rm @last").success();

    let run = project.start("run slow.yaml");
    project.wait_for("started");
    let name = project.last_run("name");
    let gc = project.start_saying("gc", "gc.log");
    project.wait_for_words("gc.log", &format!("waiting for run {name}"));
    assert!(unneeded.exists(), "gc began before the run had ended");

    project.write("go", "");
    project.wait(run).success();
    let gc = project.wait(gc).success();
    assert!(gc.stdout.contains("artifact"), "{gc}");
    assert!(!gc.stdout.contains("waiting"), "{gc}");
    assert!(!unneeded.exists(), "{gc}");
    project.tinylm("cache verify").success();
    let plan = project.tinylm("plan slow.yaml").success();
    assert!(plan.stdout.ends_with("has nothing to do.\n"), "{plan}");
}

/// Starts a `gc` of everything that a finished run made, and holds it up in the middle.
fn held_up(project: &Project) -> (Child, Lock) {
    project.tinylm("run chain.yaml").success();
    let digest = digest(project, "first");
    project.tinylm("rm @last").success();
    let home = Home::at(project.path(".tinylm"));
    let lock = Lock::try_exclusive(&home.artifact_lock(&digest), "a test");
    let lock = lock.unwrap().unwrap();
    let gc = project.start_saying("gc", "gc.log");
    let n_keys = || tinylm_registry::keys::list_keys(&home).unwrap().len();
    wait_until("gc to remove the key records", || n_keys() == 0);
    (gc, lock)
}

fn digest(project: &Project, stage: &str) -> Digest {
    let shown = project.tinylm(&format!("show @last/{stage} --json"));
    let shown: serde_json::Value = serde_json::from_str(&shown.success().stdout).unwrap();
    shown["stage"]["artifact"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn a_run_waits_for_gc_by_name_and_makes_anew_what_went() {
    let project = Project::chain();
    let (gc, lock) = held_up(&project);
    let run = project.start_saying("run chain.yaml", "run.log");
    project.wait_for_words("run.log", "waiting for `tinylm gc` (process ");
    drop(lock);
    project.wait(gc).success();
    project.wait(run).success();
    assert_eq!(project.outcomes(), "corpus made, sorted made, first made");
    assert_eq!(project.artifact("first", "first.txt"), "apple\n");
    project.tinylm("cache verify").success();
}

#[test]
fn a_killed_gc_leaves_a_store_that_runs_and_gc_can_go_on_with() {
    let project = Project::chain();
    let (gc, lock) = held_up(&project);
    signal(gc.id(), "KILL");
    project.wait(gc).failure(-9);
    drop(lock);
    project.tinylm("cache verify").success();
    project.tinylm("run chain.yaml").success();
    assert_eq!(project.outcomes(), "corpus made, sorted made, first made");
    project.tinylm("gc").success();
    let again = project.tinylm("gc").success();
    assert!(again.stdout.contains("freed 0 B in 0 places"), "{again}");
    assert_eq!(project.artifact("first", "first.txt"), "apple\n");
}

#[test]
fn looking_after_a_store_that_is_not_there_makes_none() {
    let project = Project::chain();
    for command in ["gc", "gc --dry-run", "cache verify", "cache du", "doctor"] {
        project.tinylm(command).success();
    }
    for command in ["runs", "resume", "rm @last", "note @last x", "tag @last x"] {
        let output = project.tinylm(command).failure(2);
        assert!(output.stderr.contains("there are no runs in"), "{output}");
    }
    assert!(!project.path(".tinylm").exists());
}
