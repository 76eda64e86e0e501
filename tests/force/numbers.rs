//! Numbers that no one means, in every setting that takes one.

use std::process::Command;

use tinylm_pipeline::settings::{Setting, Shape};

use crate::attack::{Clock, Dice, assert_told, binary, cut_off, project, run, tinylm};

const ODD: [&str; 14] = [
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775807",
    "9223372036854775808",
    "4294967296",
    "2147483647",
    "65536",
    "-1",
    "0",
    "1e308",
    "-1e308",
    "1e-320",
    ".nan",
    ".inf",
];

/// The dotted names of all settings that hold a number, or may.
fn numbers(list: &[Setting], prefix: &str, found: &mut Vec<String>) {
    for setting in list {
        let name = format!("{prefix}{}", setting.name);
        match &setting.shape {
            Shape::Map(inner, _) => numbers(inner, &format!("{name}."), found),
            Shape::Number(_) => found.push(name),
            Shape::Value(word) | Shape::Own(word, _) if word.contains("number") => found.push(name),
            _ => {}
        }
    }
}

/// Those of all kinds.
fn settings() -> Vec<String> {
    let mut settings = Vec::new();
    for kind in tinylm_stages::catalog() {
        let prefix = format!("{}.", kind.name);
        numbers(&(kind.settings)(), &prefix, &mut settings);
    }
    assert!(settings.len() > 60, "{settings:?}");
    settings
}

/// The time that a run may take: `steps: 9223372036854775807` is as good a wish as any.
const RUN_SECONDS: &str = "3";

#[test]
fn no_number_makes_a_stage_panic() {
    let project = project();
    run(project.path(), &[], "the experiment itself");
    let settings = settings();
    let (mut dice, clock) = (Dice::new("numbers at work"), Clock::start());
    let mut n_attacks = 0;
    while n_attacks == 0 || clock.goes_on() {
        let change = format!(
            "{}={}",
            dice.pick::<String>(&settings),
            dice.pick::<&str>(&ODD)
        );
        let stage = change.split('.').next().unwrap();
        let args = ["run", "all.yaml", "-S", &change, "--until", stage];
        let mut command = cut_off(Command::new("timeout"), project.path());
        command
            .args(["-s", "KILL", RUN_SECONDS])
            .arg(binary())
            .args(args);
        let output = command.output().unwrap();
        if output.status.code().is_some() {
            assert_told(&output, &change);
        }
        n_attacks += 1;
    }
    println!("numbers at work: {n_attacks} runs");
}

#[test]
fn no_number_makes_a_plan_panic() {
    let project = project();
    // So that a plan knows the vocabulary, and with it how large a model would be.
    let made = tinylm(project.path(), &["run", "all.yaml", "--until", "binarize"]);
    assert_told(&made, "the experiment itself");
    assert!(made.status.success());

    let settings = settings();
    let attack = |setting: &str, value: &str| {
        let change = format!("{setting}={value}");
        let output = tinylm(project.path(), &["plan", "-v", "all.yaml", "-S", &change]);
        assert_told(&output, &change);
    };
    // The largest number in each of them, and then whatever the dice say.
    for setting in &settings {
        attack(setting, ODD[0]);
    }
    let (mut dice, clock) = (Dice::new("numbers"), Clock::start());
    let mut n_attacks = settings.len();
    while clock.goes_on() {
        let (setting, value) = (dice.pick::<String>(&settings), dice.pick::<&str>(&ODD));
        attack(setting, value);
        n_attacks += 1;
    }
    println!("numbers: {n_attacks} plans");
}
