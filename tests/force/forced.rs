//! Stages that are made again and again: one recipe, one artifact.

use crate::attack::{Clock, Dice, artifacts, project, run};

const STAGES: [&str; 5] = ["download", "normalize", "dedupe", "tokenizer", "binarize"];

#[test]
fn a_stage_that_is_forced_makes_the_same_bytes() {
    let project = project();
    run(
        project.path(),
        &["--until", "binarize"],
        "the experiment itself",
    );
    let wanted = artifacts(project.path(), &STAGES);
    let (mut dice, clock) = (Dice::new("forced"), Clock::start());
    let mut n_runs = 0;
    while n_runs == 0 || clock.goes_on() {
        let threads = (1 + dice.below(4)).to_string();
        let mut args = vec!["--until", "binarize", "--threads", &threads];
        for stage in STAGES {
            args.extend(["--force", stage]);
        }
        run(project.path(), &args, "a forced run");
        assert_eq!(
            artifacts(project.path(), &STAGES),
            wanted,
            "{threads} threads"
        );
        n_runs += 1;
    }
    println!("forced: {n_runs} runs of {} stages", STAGES.len());
}
