//! The end of a run: the numbers and the texts that its author was waiting for.

use std::fs;

use tinylm_pipeline::{Content, Settled, spec::Experiment};
use tinylm_registry::Home;
use tinylm_reports::{number, with_error};

/// Numbers of an evaluation worth a line at the end of a run, best known first.
const NUMBERS: [&str; 6] = [
    "perplexity",
    "unigram_perplexity",
    "bits_per_byte",
    "accuracy_top1",
    "core",
    "minimal_pairs",
];

/// Texts printed whole; the rest is in the artifact.
const TEXTS_MAX: usize = 5;

/// Returns the numbers of every evaluation and the first texts of every sample stage, each a block
/// of lines.
pub(crate) fn told(home: &Home, experiment: &Experiment, settled: &[Settled]) -> Vec<String> {
    let stages = experiment.stages.iter().zip(settled);
    let told = stages.filter_map(|(stage, settled)| match stage.kind.makes {
        Content::Figures => numbers(settled),
        Content::Samples => texts(home, settled),
        _ => None,
    });
    told.collect()
}

fn numbers(settled: &Settled) -> Option<String> {
    let numbers = NUMBERS
        .iter()
        .filter_map(|name| Some((name, settled.metrics.get(name)?)));
    let words: Vec<String> = numbers
        .map(|(name, value)| {
            let value = match settled.metrics.get(&format!("{name}_stderr")) {
                Some(error) => with_error(value, error),
                None => number(value),
            };
            format!("{} {value}", name.replace('_', " "))
        })
        .collect();
    (!words.is_empty()).then(|| format!("{}: {}", settled.stage, words.join(", ")))
}

fn texts(home: &Home, settled: &Settled) -> Option<String> {
    let path = home
        .artifact_files(&settled.artifact?)
        .join("samples.jsonl");
    let text = fs::read_to_string(path).ok()?;
    let samples: Vec<serde_json::Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let mut lines = Vec::new();
    for sample in samples.iter().take(TEXTS_MAX) {
        let field = |name: &str| sample[name].as_str().unwrap_or("").trim().to_owned();
        let prompt = indented(&field("prompt"));
        lines.push(format!("{}> {prompt}", settled.stage));
        lines.push(format!("  {}", indented(&field("text"))));
    }
    if samples.len() > TEXTS_MAX {
        lines.push(format!("  ... and {} more", samples.len() - TEXTS_MAX));
    }
    Some(lines.join("\n"))
}

/// Lines of a text stand below each other.
fn indented(text: &str) -> String {
    text.replace('\n', "\n  ")
}
