//! Numbers that no one means, in every setting that takes one.

use tinylm_pipeline::settings::{Setting, Shape};

use crate::attack::{Clock, Dice, assert_told, project, tinylm};

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
            Shape::Value(word) if word.contains("number") => found.push(name),
            _ => {}
        }
    }
}

#[test]
fn no_number_makes_a_plan_panic() {
    let project = project();
    // So that a plan knows the vocabulary, and with it how large a model would be.
    let made = tinylm(project.path(), &["run", "all.yaml", "--until", "binarize"]);
    assert_told(&made, "the experiment itself");
    assert!(made.status.success());

    let mut settings = Vec::new();
    for kind in tinylm_stages::catalog() {
        numbers(
            &(kind.settings)(),
            &format!("{}.", kind.name),
            &mut settings,
        );
    }
    assert!(settings.len() > 60, "{settings:?}");
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
