//! History is optional: a run goes on without a registry that it can write to.

use std::{
    fs,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use rusqlite::Connection;

use crate::harness::{Output, Project, signal, wait_until};

const UNRECORDED: &str = "warning: this run was not recorded: ";

/// Another program in the middle of writing to the registry.
fn foreign_writer(project: &Project) -> Connection {
    let writer = Connection::open(project.path(".tinylm/registry.sqlite")).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    writer
}

fn assert_told_once(output: &Output) {
    assert_eq!(output.stderr.matches(UNRECORDED).count(), 1, "{output}");
}

#[test]
fn a_run_goes_on_beside_a_foreign_writer_and_says_once_that_it_was_not_recorded() {
    let project = Project::chain();
    project.tinylm("run chain.yaml --until corpus").success();
    let writer = foreign_writer(&project);
    let output = project.tinylm("run chain.yaml").success();
    drop(writer);
    assert_told_once(&output);
    assert!(
        output.stderr.contains("stayed locked by another program"),
        "{output}"
    );
    assert!(output.stdout.contains(": 2 made, 1 hit\n"), "{output}");
    assert!(
        !output.stdout.contains("tinylm report"),
        "there is nothing to report"
    );
    project.tinylm("run chain.yaml").success();
    assert_eq!(project.outcomes(), "corpus hit, sorted hit, first hit");
}

/// Asks a run to stop and returns what it said; it has to do so at once.
fn terminated(project: &Project, run: Child) -> Output {
    let asked = Instant::now();
    signal(run.id(), "TERM");
    let output = project.wait(run).failure(143);
    assert!(asked.elapsed() < Duration::from_secs(5), "{output}");
    output
}

#[test]
fn a_run_that_waits_for_a_foreign_writer_hears_that_it_is_to_stop() {
    let project = Project::chain();
    project.tinylm("run chain.yaml --until corpus").success();
    let _writer = foreign_writer(&project);
    let run = project.start("run chain.yaml");
    let locks = project.path(".tinylm/locks");
    wait_until("the run's lock", || {
        let names = fs::read_dir(&locks).unwrap().flatten();
        let names: Vec<_> = names.map(|entry| entry.file_name()).collect();
        names
            .iter()
            .any(|name| name.to_string_lossy().starts_with("run-"))
    });
    thread::sleep(Duration::from_millis(300));
    assert_told_once(&terminated(&project, run));
}

#[test]
fn a_registry_that_is_cut_to_nothing_during_a_run_holds_nobody_up() {
    let project = Project::chain();
    project.tinylm("run chain.yaml --until corpus").success();
    project.replace(
        "chain.yaml",
        "sort '",
        &format!(
            "touch {}; while [ ! -e {} ]; do sleep 0.01; done; sort '",
            project.path("begun").display(),
            project.path("go-on").display()
        ),
    );
    let run = project.start("run chain.yaml");
    project.wait_for("begun");
    fs::write(project.path(".tinylm/registry.sqlite"), "").unwrap();
    let cut = Instant::now();
    project.write("go-on", "");
    let output = project.wait(run).success();
    assert!(cut.elapsed() < Duration::from_secs(8), "{output}");
    assert!(output.stdout.contains("2 made, 1 hit"), "{output}");

    let next = project.tinylm("run chain.yaml").failure(3);
    assert!(next.stderr.contains("is damaged: it is empty"), "{next}");
    for file in [
        "registry.sqlite",
        "registry.sqlite-wal",
        "registry.sqlite-shm",
    ] {
        fs::remove_file(project.path(".tinylm").join(file)).ok();
    }
    project.tinylm("run chain.yaml").success();
    assert_eq!(project.outcomes(), "corpus hit, sorted hit, first hit");
}
