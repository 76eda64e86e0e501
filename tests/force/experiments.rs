//! Experiment files with something wrong in them: every one is understood or refused with a message.

use std::{fs, path::Path};

use crate::attack::{Clock, Dice, assert_told, damaged, files_below, project, tinylm};

/// Pieces that mean something where experiments are read.
const ODD: [&[u8]; 16] = [
    b"${x}",
    b"${",
    b"$${",
    b"&a *a",
    b"*a",
    b"!!binary ",
    b"---\n",
    b"\t",
    b"\0",
    b"\xff",
    b": ",
    b"[[[[[[[[",
    b"{",
    b"extends: all.yaml\n",
    b"use: all.yaml\n",
    b"~",
];

#[test]
fn a_broken_experiment_is_understood_or_refused_with_a_message() {
    let project = project();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
    let shipped = files_below(&shipped);
    let mut texts: Vec<Vec<u8>> = shipped
        .iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .map(|path| fs::read(path).unwrap())
        .collect();
    texts.push(fs::read(project.path().join("all.yaml")).unwrap());
    let (mut dice, clock) = (Dice::new("experiments"), Clock::start());
    let mut n_attacks = 0;
    while clock.goes_on() {
        let text = dice.pick::<Vec<u8>>(&texts).clone();
        let broken = damaged(&mut dice, &text, &ODD);
        fs::write(project.path().join("broken.yaml"), &broken).unwrap();
        let command = *dice.pick(&["plan", "dag"]);
        let output = tinylm(project.path(), &[command, "broken.yaml"]);
        let what = format!("{command} of\n{}", String::from_utf8_lossy(&broken));
        assert_told(&output, &what);
        n_attacks += 1;
    }
    println!("experiments: {n_attacks} files");
}
