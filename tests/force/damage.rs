//! Damage to the store between commands: it is found, and what is lost is made anew.

use std::fs;

use crate::attack::{
    Clock, Dice, STAGES, artifacts, assert_told, damaged, files_below, project, run, tinylm,
};

#[test]
fn what_is_damaged_in_the_store_is_found_and_made_anew() {
    let project = project();
    run(project.path(), &[], "the experiment itself");
    let wanted = artifacts(project.path(), &STAGES);
    let (mut dice, clock) = (Dice::new("damage"), Clock::start());
    let mut n_attacks = 0;
    while n_attacks == 0 || clock.goes_on() {
        let files = files_below(&project.path().join(".tinylm/store"));
        let path = dice.pick(&files).clone();
        let sound = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        if dice.below(4) > 0 {
            fs::write(&path, damaged(&mut dice, &sound, &[b"x", b"\0\0"])).unwrap();
        }
        let what = path.display().to_string();
        assert_told(&tinylm(project.path(), &["cache", "verify"]), &what);
        run(project.path(), &[], &what);
        assert_eq!(artifacts(project.path(), &STAGES), wanted, "{what}");
        n_attacks += 1;
    }
    println!("damage: {n_attacks} files");
}
