//! Models with something wrong in them: they speak or are refused, and never panic.

use std::fs;

use crate::attack::{
    Clock, Dice, artifact, assert_told, damaged, files_below, project, run, tinylm,
};

const ODD: [&[u8]; 6] = [
    b"{",
    b"\0\0\0\0\0\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"9999999999",
    b"-1",
    b"null",
];

#[test]
fn a_broken_model_speaks_or_is_refused() {
    let project = project();
    run(
        project.path(),
        &["--until", "finetune"],
        "the experiment itself",
    );
    let model = artifact(project.path(), "finetune");
    let files = files_below(&model);
    assert!(!files.is_empty());
    let (mut dice, clock) = (Dice::new("models"), Clock::start());
    let mut n_attacks = 0;
    while clock.goes_on() {
        let path = dice.pick(&files);
        let sound = fs::read(path).unwrap();
        let rights = fs::metadata(path).unwrap().permissions();
        let broken = damaged(&mut dice, &sound, &ODD);
        fs::remove_file(path).unwrap();
        fs::write(path, &broken).unwrap();
        let args = [
            "sample",
            "@last/finetune",
            "--prompt",
            "one",
            "--max-tokens",
            "2",
        ];
        let output = tinylm(project.path(), &args);
        assert_told(&output, &format!("a broken {}", path.display()));
        fs::write(path, &sound).unwrap();
        fs::set_permissions(path, rights).unwrap();
        n_attacks += 1;
    }
    println!("models: {n_attacks} models");
}
