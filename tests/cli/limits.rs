//! Systems that allow too little: a run says so and ends, and never waits for what cannot come.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    harness::{Project, copy_for_others},
    skipped::skipped,
};

/// Far longer than the three small stages take, far shorter than for ever.
const LONG: Duration = Duration::from_secs(20);

/// Runs a command that must end by itself; returns what it printed.
fn ends(mut command: Command) -> String {
    let started = Instant::now();
    let output = command.output().unwrap();
    assert!(started.elapsed() < LONG, "it was ended by `timeout`");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_run_that_may_not_have_another_thread_says_so_and_ends() {
    let mut said = String::new();
    // From so little that nothing starts to so much that nothing is missing; more closely where the program
    // fits and not all of its threads do.
    let sizes = (16..400).step_by(12).chain((80..100).step_by(2));
    let sizes = sizes.chain((140..280).step_by(5));
    for megabytes in sizes {
        let project = Project::chain();
        let line = format!(
            "ulimit -v {}; exec timeout -s KILL {} tinylm run chain.yaml",
            megabytes * 1024,
            LONG.as_secs()
        );
        said.push_str(&ends(project.shell(&line)));
    }
    assert!(
        said.contains("the system allows no further thread"),
        "{said}"
    );
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_user_who_may_start_few_processes_gets_an_error_and_no_hang() {
    for n_processes in [1, 2, 3, 4, 5, 6, 8, 12] {
        let project = Project::chain();
        let binary = copy_for_others(&project, 0o777);
        let line = format!(
            "ulimit -u {n_processes}; exec timeout -s KILL {} {} run chain.yaml",
            LONG.as_secs(),
            binary.display()
        );
        let mut command = Command::new("setpriv");
        command
            .args([
                "--reuid=65533",
                "--regid=65533",
                "--clear-groups",
                "sh",
                "-c",
                &line,
            ])
            .current_dir(project.path(""));
        let said = ends(command);
        if said.contains("setpriv:") {
            skipped("this user cannot become another one");
            return;
        }
    }
}
