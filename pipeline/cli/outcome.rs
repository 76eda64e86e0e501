//! The end of a run: the numbers and the texts that its author was waiting for.

use std::fs;

use tinylm_pipeline::{Content, Settled, spec::Experiment};
use tinylm_registry::Home;
use tinylm_reports::number;

use crate::console::Console;

/// Numbers of an evaluation worth a line at the end of a run, best known first.
const NUMBERS: [&str; 4] = [
    "perplexity",
    "unigram_perplexity",
    "bits_per_byte",
    "accuracy_top1",
];

/// Texts printed whole; the rest is in the artifact.
const TEXTS_MAX: usize = 5;

/// Prints the numbers of every evaluation and the first texts of every sample stage.
pub(crate) fn print(console: &Console, home: &Home, experiment: &Experiment, settled: &[Settled]) {
    for (stage, settled) in experiment.stages.iter().zip(settled) {
        match stage.kind.makes {
            Content::Figures => print_numbers(console, settled),
            Content::Samples => print_texts(console, home, settled),
            _ => {}
        }
    }
}

fn print_numbers(console: &Console, settled: &Settled) {
    let numbers = NUMBERS
        .iter()
        .filter_map(|name| Some((name, settled.metrics.get(name)?)));
    let words: Vec<String> = numbers
        .map(|(name, value)| format!("{} {}", name.replace('_', " "), number(value)))
        .collect();
    if !words.is_empty() {
        console.result("");
        console.result(format!("{}: {}", settled.stage, words.join(", ")));
    }
}

fn print_texts(console: &Console, home: &Home, settled: &Settled) {
    let Some(digest) = settled.artifact else {
        return;
    };
    let path = home.artifact_files(&digest).join("samples.jsonl");
    let Ok(text) = fs::read_to_string(path) else {
        return;
    };
    let samples: Vec<serde_json::Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    console.result("");
    for sample in samples.iter().take(TEXTS_MAX) {
        let field = |name: &str| sample[name].as_str().unwrap_or("").trim().to_owned();
        let prompt = indented(&field("prompt"));
        console.result(format!("{}> {prompt}", settled.stage));
        console.result(format!("  {}", indented(&field("text"))));
    }
    if samples.len() > TEXTS_MAX {
        console.result(format!("  ... and {} more", samples.len() - TEXTS_MAX));
    }
}

/// Lines of a text stand below each other.
fn indented(text: &str) -> String {
    text.replace('\n', "\n  ")
}
