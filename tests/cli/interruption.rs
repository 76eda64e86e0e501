//! Ctrl-C, SIGTERM and kill -9, at the parent and at the child.

use std::{fs, process::Child};

use rusqlite::Connection;

use crate::harness::{Project, processes_with, sent, signal, wait_until};

/// A stage that says that it runs, and finishes once `go` is there.
fn waiting() -> Project {
    let project = Project::new();
    let here = project.path("").display().to_string();
    project.write("corpus.txt", "one\n");
    project.write(
        "wait.yaml",
        &format!(
            "name: wait
stages:
  corpus: {{ kind: download, with: {{ path: corpus.txt }} }}
  slow:
    kind: command
    inputs: [corpus]
    with:
      run: [sh, -c, \"echo x >> {here}started; while [ ! -f {here}go ]; do sleep 0.02; done; touch '{{out}}/x'\"]
      outputs: [x]
"
        ),
    );
    project
}

fn started(project: &Project) -> Child {
    let child = project.start("run wait.yaml");
    project.wait_for("started");
    child
}

/// The processes that carry out the slow stage: our own and its shell.
fn of_stage(project: &Project) -> Vec<u32> {
    processes_with(&project.path("started"))
}

fn resumes(project: &Project) {
    let id = project.last_run("id");
    project.write("go", "");
    project.tinylm("resume @last").success();
    assert_eq!(project.outcomes(), "corpus hit, slow made");
    assert_eq!(project.last_run("id"), id, "the same run");
    assert_eq!(project.last_run("status"), "done");
}

#[test]
fn ctrl_c_stops_records_cancelled_and_says_how_to_go_on() {
    let project = waiting();
    let child = started(&project);
    signal(child.id(), "INT");
    let output = project.wait(child).failure(130);
    assert!(
        output.stdout.contains("go on with `tinylm resume"),
        "{output}"
    );
    assert_eq!(project.last_run("status"), "cancelled");
    assert_eq!(project.outcomes(), "corpus made, slow cancelled");
    // The longest word of its column, and still a word of its own.
    let shown = project.tinylm("show @last").success().stdout;
    assert!(shown.contains(" cancelled "), "{shown}");
    resumes(&project);
}

#[test]
fn sigterm_exits_with_143() {
    let project = waiting();
    let child = started(&project);
    signal(child.id(), "TERM");
    project.wait(child).failure(143);
    assert_eq!(project.last_run("status"), "cancelled");
    resumes(&project);
}

#[test]
fn a_program_that_is_stopped_is_heard_to_its_last_word() {
    let project = waiting();
    // The last words come from a child that outlives the program itself, and stand in no setting.
    project.replace(
        "wait.yaml",
        "\"echo x",
        "\"trap '(sleep 0.3; echo so far and no $((40 + 2))) & exit 1' TERM; echo x",
    );
    let child = started(&project);
    signal(child.id(), "TERM");
    project.wait(child).failure(143);
    let shown = project.tinylm("show @last/slow").success();
    assert!(shown.stdout.contains("so far and no 42"), "{shown}");
}

#[test]
fn killing_the_parent_leaves_no_orphan_no_lock_and_an_interrupted_run() {
    let project = waiting();
    let child = started(&project);
    signal(child.id(), "KILL");
    project.wait(child).failure(-9);
    wait_until("the orphans' end", || of_stage(&project).is_empty());
    assert_eq!(project.last_run("status"), "interrupted");
    resumes(&project);
}

#[test]
fn killing_the_child_is_a_failed_stage_of_a_run_that_survives() {
    let project = waiting();
    let child = started(&project);
    for pid in of_stage(&project) {
        // What it has just started may have ended.
        sent(pid, "KILL").ok();
    }
    project.wait(child).failure(1);
    assert_eq!(project.last_run("status"), "failed");
    resumes(&project);
}

#[test]
fn killing_both_leaves_nothing_behind() {
    let project = waiting();
    let child = started(&project);
    let stage = of_stage(&project);
    signal(child.id(), "KILL");
    for pid in stage {
        // It may have died with its parent already.
        sent(pid, "KILL").ok();
    }
    project.wait(child).failure(-9);
    wait_until("the orphans' end", || of_stage(&project).is_empty());
    assert_eq!(project.last_run("status"), "interrupted");
    let artifacts = fs::read_dir(project.path(".tinylm/store/artifacts")).unwrap();
    assert_eq!(artifacts.count(), 1, "only the download's");
    resumes(&project);
}

#[test]
fn killed_at_any_moment_it_leaves_only_what_is_whole() {
    let project = Project::chain();
    let places = project.path(".tinylm");
    for after_ms in [0, 10, 20, 35, 50, 70, 100, 150] {
        project.write("corpus.txt", &format!("{after_ms}\nzebra\n"));
        let child = project.start("run chain.yaml");
        std::thread::sleep(std::time::Duration::from_millis(after_ms));
        signal(child.id(), "KILL");
        // It may have been done already.
        drop(project.wait(child));
        wait_until("the orphans' end", || processes_with(&places).is_empty());
        if places.exists() {
            project.tinylm("cache verify").success();
        }
        project.tinylm("run chain.yaml").success();
        assert_eq!(
            project.artifact("first", "first.txt"),
            format!("{after_ms}\n")
        );
        assert_eq!(project.last_run("status"), "done");
    }
    let gc = project.tinylm("gc").success();
    assert!(!gc.stdout.contains("artifact "), "{gc}");
    // It is made when something is first put there.
    let left = fs::read_dir(places.join("store/staging")).map_or(0, |left| left.count());
    assert_eq!(left, 0, "gc left something behind");
}

#[test]
fn what_a_run_made_that_was_killed_before_it_could_say_so_the_next_run_writes_down() {
    for last_words in ["{\"ended\"", "{\"execution\""] {
        let project = Project::chain();
        project.tinylm("run chain.yaml").success();
        let run = project.last_run("id");
        let execution = |field: &str| {
            let registry = Connection::open(project.path(".tinylm/registry.sqlite")).unwrap();
            let select =
                format!("SELECT ifnull({field}, '') FROM executions WHERE stage = 'first'");
            let value = registry.query_row(&select, [], |row| row.get::<_, String>(0));
            value.unwrap_or_default()
        };
        let made = ["run_id", "status", "artifact", "kind", "key"].map(execution);
        assert_eq!(made[..2], [run.as_str(), "done"]);
        // Killed after its last artifact was the answer to its key, and before a word of that.
        let journal = format!(".tinylm/runs/{run}/journal.jsonl");
        let whole = project.read(&journal);
        let heard = whole.rfind(last_words).unwrap();
        project.write(&journal, &whole[..heard]);
        for of_index in ["", "-wal", "-shm"] {
            fs::remove_file(project.path(&format!(".tinylm/registry.sqlite{of_index}"))).ok();
        }
        project.tinylm("runs").success();
        assert_ne!(execution("status"), "done");
        project.tinylm("run chain.yaml").success();
        let known = ["run_id", "status", "artifact", "kind", "key"].map(execution);
        assert_eq!(known, made, "{last_words}");
    }
}

#[test]
fn resume_refuses_by_name_when_a_local_file_has_changed() {
    let project = waiting();
    let child = started(&project);
    signal(child.id(), "KILL");
    project.wait(child).failure(-9);
    project.write("corpus.txt", "two\n");
    let output = project.tinylm("resume @last").failure(2);
    assert!(
        output.stderr.contains("`[ROOT]/corpus.txt` changed since"),
        "{output}"
    );
}

#[test]
fn a_run_under_way_can_be_neither_removed_nor_resumed() {
    let project = waiting();
    let child = started(&project);
    let removed = project.tinylm("rm @last").failure(2);
    assert!(removed.stderr.contains("is still going on"), "{removed}");
    assert!(removed.stderr.contains("help: stop it"), "{removed}");
    let resumed = project.tinylm("resume @last").failure(2);
    assert!(resumed.stderr.contains("is still going on"), "{resumed}");
    assert!(
        resumed.stderr.contains("help: follow it with `tinylm show"),
        "{resumed}"
    );
    project.write("go", "");
    project.wait(child).success();
    let done = project.tinylm("resume @last").success();
    assert!(
        done.stdout.contains("is done: nothing is left to do"),
        "{done}"
    );
    assert_eq!(project.read("started"), "x\n");
}

#[test]
fn two_processes_that_need_the_same_key_make_it_once() {
    let project = waiting();
    let first = started(&project);
    let second = project.start_saying("run wait.yaml", "second");
    project.wait_for_words("second", "slow: waiting for `slow` of run");
    project.write("go", "");
    project.wait(first).success();
    project.wait(second).success();
    assert_eq!(project.outcomes(), "corpus hit, slow hit");
    assert_eq!(project.read("started"), "x\n");
}

#[test]
fn eight_runs_at_once_on_a_new_registry_lose_nothing() {
    let project = Project::new();
    for n in 0..8 {
        project.write(
            &format!("n{n}.yaml"),
            &format!(
                "stages:
  one: {{ kind: command, with: {{ run: [sh, -c, \"echo {n} > '{{out}}/x'\"], outputs: [x] }} }}
"
            ),
        );
    }
    let children: Vec<Child> = (0..8)
        .map(|n| project.start(&format!("run n{n}.yaml")))
        .collect();
    for child in children {
        let output = project.wait(child).success();
        assert!(!output.stderr.contains("not recorded"), "{output}");
    }
    let runs = project.tinylm("runs --where status=done --json").success();
    let runs: serde_json::Value = serde_json::from_str(&runs.stdout).unwrap();
    assert_eq!(runs.as_array().unwrap().len(), 8);
}
