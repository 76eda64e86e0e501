//! The experiment files that ship: every one can be planned, and its small variant runs.
//!
//! The variants share one home, as a user's experiments do, so that what two of them
//! have in common is made once.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::harness::Project;

#[test]
fn every_experiment_can_be_planned_without_a_network() {
    let project = Project::new();
    let files = files_in("");
    assert!(files.len() > 30, "only {} files were found", files.len());
    for file in files {
        let plan = project.tinylm_words(&["--home", "home", "plan", &file]);
        let plan = plan.success();
        assert!(plan.stdout.contains("would run"), "{file}: {plan}");
        assert!(
            !project.path("home").exists(),
            "{file} wrote while planning"
        );
    }
}

#[test]
fn every_experiment_opens_with_the_question_it_asks() {
    for file in files_in("") {
        let text = fs::read_to_string(&file).unwrap();
        let head: Vec<&str> = text
            .lines()
            .take_while(|line| line.starts_with('#'))
            .collect();
        assert!(head.join(" ").contains('?'), "{file} asks nothing");
    }
}

#[test]
fn every_experiment_has_a_smoke_variant() {
    let variants: Vec<String> = files_in("smoke").iter().map(|file| stem(file)).collect();
    let mut wanted: Vec<String> = files_in("ablations")
        .iter()
        .map(|file| format!("ablation_{}", stem(file)))
        .collect();
    wanted.extend(top_level().iter().map(|file| stem(file)));
    wanted.sort();
    assert_eq!(variants, wanted);
}

#[test]
fn every_smoke_variant_runs_to_its_end() {
    let project = Project::new();
    let files = files_in("smoke");
    for file in &files {
        let run = project.tinylm_words(&["--home", "home", "run", file]);
        assert_eq!(run.code, Some(0), "{file}\n{run}");
    }
    let listed = project.tinylm("--home home runs --json").success();
    let runs: Vec<Value> = serde_json::from_str(&listed.stdout).unwrap();
    for file in &files {
        let name = format!("smoke_{}", stem(file));
        let mut of_file = runs
            .iter()
            .filter(|run| run["experiment"] == name)
            .peekable();
        assert!(of_file.peek().is_some(), "{name} left no run");
        for run in of_file {
            assert_eq!(run["status"], "done", "{name}");
            assert!(is_measured(run), "{name} measured nothing: {run}");
        }
    }
}

/// Whether the run ended with what its experiment is about: how well a model predicts or, where
/// none is trained, how many tokens a text takes.
fn is_measured(run: &Value) -> bool {
    let metrics = run["metrics"].as_object().unwrap();
    let has = |ending: &str| {
        metrics
            .iter()
            .any(|(name, value)| name.ends_with(ending) && value.is_f64())
    };
    match has(".loss") {
        true => has(".bits_per_byte"),
        false => has(".tokens_per_word"),
    }
}

/// Every experiment file at or below a folder of `experiments/`, sorted.
fn files_in(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(&root().join(folder), &mut found);
    found.sort();
    found
}

fn top_level() -> Vec<String> {
    let is_top = |file: &String| Path::new(file).parent() == Some(root().as_path());
    files_in("").into_iter().filter(is_top).collect()
}

fn collect(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "yaml") {
            found.push(path.to_str().unwrap().to_owned());
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments")
}

fn stem(file: &str) -> String {
    let stem = Path::new(file).file_stem().unwrap();
    stem.to_str().unwrap().to_owned()
}
