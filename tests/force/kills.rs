//! Runs that are killed at any moment: what they leave is all or nothing, and the next one ends them.

use std::{
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::attack::{
    Clock, Dice, STAGES, artifacts, binary, cut_off, files_below, project, run, tinylm,
};

#[test]
fn a_killed_run_goes_on_to_the_same_artifacts() {
    let undisturbed = project();
    run(undisturbed.path(), &[], "the experiment itself");
    let wanted = artifacts(undisturbed.path(), &STAGES);
    let (mut dice, clock) = (Dice::new("kills"), Clock::start());
    let (mut n_chains, mut n_kills) = (0, 0);
    while n_chains == 0 || clock.goes_on() {
        let project = project();
        for _ in 0..=dice.below(4) {
            let mut command = cut_off(Command::new(binary()), project.path());
            command.args(["run", "all.yaml"]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut killed = command.spawn().unwrap();
            thread::sleep(Duration::from_millis(dice.next() % 700));
            n_kills += u32::from(killed.try_wait().unwrap().is_none());
            killed.kill().ok();
            killed.wait().unwrap();
        }
        run(project.path(), &[], "the run after the kills");
        assert_eq!(artifacts(project.path(), &STAGES), wanted);
        let staging = project.path().join(".tinylm/store/staging");
        assert!(staging.is_dir(), "the store has another layout now");
        let gc = tinylm(project.path(), &["gc"]);
        assert!(gc.status.success(), "{gc:?}");
        let staging = files_below(&staging);
        assert!(staging.is_empty(), "{staging:?}");
        n_chains += 1;
    }
    println!("kills: {n_kills} kills in {n_chains} chains");
}
