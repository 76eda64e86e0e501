//! Checkpoints that are damaged while nothing runs: training goes on from one that is whole, or from
//! its beginning, and ends with the bytes that it would have had.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::attack::{
    Clock, Dice, EXPERIMENT, artifacts, binary, cut_off, damaged, files_below, run,
};

const TO_THE_MODEL: [&str; 2] = ["--until", "pretrain"];

#[test]
fn a_training_with_damaged_checkpoints_ends_with_the_same_bytes() {
    let undisturbed = project();
    run(undisturbed.path(), &TO_THE_MODEL, "the training itself");
    let wanted = artifacts(undisturbed.path(), &["pretrain"]);
    let (mut dice, clock) = (Dice::new("checkpoints"), Clock::start());
    let (mut n_attacks, mut n_damages) = (0, 0);
    while n_attacks == 0 || clock.goes_on() {
        let project = project();
        for _ in 0..=dice.below(2) {
            killed_in_training(&mut dice, project.path());
            for path in checkpoints(project.path()) {
                if dice.below(3) == 0 {
                    let sound = fs::read(&path).unwrap();
                    fs::write(path, damaged(&mut dice, &sound, &[b"x", b"\0\0"])).unwrap();
                    n_damages += 1;
                }
            }
        }
        run(project.path(), &TO_THE_MODEL, "the run after the damage");
        assert_eq!(artifacts(project.path(), &["pretrain"]), wanted);
        n_attacks += 1;
    }
    println!("checkpoints: {n_attacks} trainings with {n_damages} damaged files");
}

/// The experiment of all attacks, with a training that takes a moment.
fn project() -> tempfile::TempDir {
    let project = tempfile::tempdir().unwrap();
    let (short, long) = (
        "train: { steps: 1, batch: 1, lr: 1e-3 } }\n  finetune",
        "train: { steps: 600, batch: 4, lr: 1e-3 } }\n    watch: { checkpoint_every: 20 }\n  finetune",
    );
    assert!(
        EXPERIMENT.contains(short),
        "the experiment is another one now"
    );
    let text = EXPERIMENT.replace(short, long);
    fs::write(project.path().join("all.yaml"), text).unwrap();
    project
}

/// Starts the experiment and kills it some time after its first checkpoint, if it is not over by then.
fn killed_in_training(dice: &mut Dice, folder: &Path) {
    let mut command = cut_off(Command::new(binary()), folder);
    command.args(["run", "all.yaml"]).args(TO_THE_MODEL);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut killed = command.spawn().unwrap();
    while killed.try_wait().unwrap().is_none() && checkpoints(folder).is_empty() {
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(Duration::from_millis(dice.next() % 200));
    killed.kill().ok();
    killed.wait().unwrap();
}

fn checkpoints(folder: &Path) -> Vec<PathBuf> {
    let mut files = files_below(&folder.join(".tinylm/work"));
    files.retain(|path| {
        path.components()
            .any(|part| part.as_os_str() == "checkpoints")
    });
    files
}
