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

/// Dialogues that a model can learn by heart in a moment.
const TOLD: [[&str; 2]; 5] = [
    ["what is your name ?", "my name is ida ."],
    ["what colour is snow ?", "snow is white ."],
    ["where do you live ?", "in a small house near the sea ."],
    ["do you like soup ?", "yes , above all with bread ."],
    ["who baked this cake ?", "my brother did , this morning ."],
];

/// The recipes that end in a model that talks, and the stages that read their dialogues.
const TALKING: [(&str, &[&str]); 6] = [
    ("combined_41m", &["daily", "shipped"]),
    ("dialogue_small", &["daily"]),
    ("jojo_chat", &["data", "official_test"]),
    ("quickstart", &["talk"]),
    ("tinylm_two_stage", &["chat_raw"]),
    ("toiny", &["dialogues"]),
];

/// A smoke variant ends well whatever its model says. Here each recipe's templates, targets and
/// stages are those of its file, and a model that learnt five dialogues by heart must say them word
/// for word: a slip anywhere between the rows of a file and an answer shows.
#[test]
fn a_model_of_each_recipe_answers_what_it_was_told() {
    let project = Project::new();
    let told = TOLD.map(|[asks, answers]| format!("User: {asks}\nAssistant: {answers}\n"));
    project.write("told.txt", &told.join("\n"));
    for (recipe, data) in TALKING {
        project.write("told.yaml", &by_heart(recipe, data));
        let run = project.tinylm("run told.yaml").success();
        for [asks, answers] in TOLD {
            let answers = match recipe {
                // Its tokenizer knows words alone.
                "toiny" => answers.replace(" .", "").replace(" ,", ""),
                _ => answers.to_owned(),
            };
            let said = format!("answers> {asks}\n  {answers}\n");
            assert!(run.stdout.contains(&said), "{recipe}\n{run}");
        }
    }
}

/// The smoke variant of a recipe, trained on `TOLD` until it knows it, and asked.
fn by_heart(recipe: &str, data: &[&str]) -> String {
    let smoke = root().join(format!("smoke/{recipe}.yaml"));
    let data: String = data
        .iter()
        .map(|stage| format!("\n  {stage}: {{ with: {{ path: told.txt }} }}"))
        .collect();
    let wide = "model: { d_model: 64 }";
    let long = "train: { steps: 200, batch: 8, lr: 5e-3, warmup: 10%, validate_every: 50 }";
    let (shards, documents, models) = match recipe {
        "tinylm_two_stage" => (
            "chat_shards",
            "clean_chat",
            format!("  base: {{ with: {{ {wide} }} }}\n  talker: {{ with: {{ {long} }} }}\n"),
        ),
        "combined_41m" | "dialogue_small" => (
            "shards",
            "clean",
            format!("  base: {{ with: {{ {wide}, {long} }} }}\n"),
        ),
        _ => (
            "shards",
            "clean",
            format!("  model: {{ with: {{ {wide}, {long} }} }}\n"),
        ),
    };
    // Words that are rare in a corpus are all there is in five dialogues.
    let rare = if recipe == "toiny" { 1 } else { 2 };
    let prompts = TOLD.map(|[asks, _]| format!("\"{asks}\"")).join(", ");
    format!(
        "extends: {smoke}
stages:{data}
  tokens: {{ with: {{ min_frequency: {rare} }} }}
  {shards}: {{ inputs: {{ documents: {documents}, tokenizer: tokens, validation: {documents} }}, with: {{ validation: 0 }} }}
{models}  answers: {{ with: {{ temperature: 0, max_tokens: 40, prompts: [{prompts}] }} }}
",
        smoke = smoke.display(),
    )
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

#[test]
fn published_digests_are_those_that_the_results_tell_of_known_experiments() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let results = read("RESULTS.md");
    let digests = read("RESULTS.yml");
    let names: Vec<String> = files_in("")
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let entries = digests.split("- experiment: ").skip(1);
    assert!(entries.clone().count() > 3);
    for entry in entries {
        let name = entry.lines().next().unwrap();
        let is_its = |text: &String| text.lines().any(|line| line == format!("name: {name}"));
        // Or one that the results quote whole, since what it reads does not ship.
        let is_known = names.iter().any(is_its) || results.contains(&format!("run {name}.yaml"));
        assert!(is_known, "no experiment is called `{name}`");
        let stages = entry.split(['{', '}']).nth(1).unwrap();
        for digest in stages
            .split(',')
            .map(|pair| pair.split(':').nth(1).unwrap())
        {
            let digest = digest.trim().trim_matches('"');
            assert!(
                results.contains(&format!("`{digest}`")),
                "`{digest}` of {name}"
            );
        }
    }
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
