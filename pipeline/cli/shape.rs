//! `tinylm plan -v`: the parts and the cost of a model to be trained.
//!
//! Known once the vocabulary is, which is when the shards are there.

use std::fs;

use serde_json::Value;
use tinylm_model::config::ModelConfig;
use tinylm_pipeline::{
    Stage,
    plan::{Planned, State},
    spec::StageSpec,
};
use tinylm_registry::Home;
use tinylm_reports::{bytes, thousands};
use tinylm_stages::kinds::pretrain::{MemoryNeed, Pretrain, PretrainSettings};

use crate::output::print_line;

/// Prints the shape of the model that a `pretrain` stage would train; other kinds have none.
pub(crate) fn print(home: &Home, stage: &StageSpec, planned: &[Planned]) {
    if stage.kind.name != Pretrain::KIND {
        return;
    }
    print_line("");
    let Some(vocab_size) = vocab_size(home, stage, planned) else {
        let name = &stage.name;
        print_line(format!(
            "{name}: its shape is known once its shards, and so its vocabulary, are there"
        ));
        return;
    };
    let Ok(settings) = serde_json::from_value::<PretrainSettings>(stage.with.clone()) else {
        return;
    };
    if let Ok(config) = settings.model.config(vocab_size) {
        print_table(&stage.name, &config);
        print_cost(&config, &settings.memory_need(&config));
    }
}

fn vocab_size(home: &Home, stage: &StageSpec, planned: &[Planned]) -> Option<usize> {
    let (_, names) = stage.inputs.iter().find(|(role, _)| role == "shards")?;
    let shards = planned
        .iter()
        .find(|one| Some(&one.name) == names.first())?;
    let State::Fresh(record) = &shards.state else {
        return None;
    };
    let path = home.artifact_files(&record.artifact).join("shards.json");
    let shards: Value = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
    shards["vocab_size"].as_u64()?.try_into().ok()
}

/// One line a tensor; blocks are alike, so the first stands for all.
fn print_table(name: &str, config: &ModelConfig) {
    let parameters = config.parameters();
    print_line(format!(
        "{name}: {} parameters",
        thousands(config.n_params() as u64)
    ));
    for parameter in &parameters {
        let (label, n_times) = match parameter.name.strip_prefix("blocks.") {
            Some(rest) => match rest.strip_prefix("0.") {
                Some(part) => (format!("blocks.*.{part}"), config.n_layers),
                None => continue,
            },
            None => (parameter.name.clone(), 1),
        };
        let shape: Vec<String> = parameter.shape.iter().map(ToString::to_string).collect();
        let times = if n_times == 1 {
            String::new()
        } else {
            format!("x {n_times}")
        };
        let n = thousands((parameter.n() * n_times) as u64);
        print_line(format!(
            "  {label:<24} {:>12} {times:>5} {n:>12}",
            shape.join(" x ")
        ));
    }
}

fn print_cost(config: &ModelConfig, need: &MemoryNeed) {
    let MemoryNeed {
        n_rows,
        len,
        bytes: needed,
        available_bytes,
    } = *need;
    let rows = if n_rows == 1 { "row" } else { "rows" };
    let mut line = format!(
        "  {:.1} MFLOP a token; about {} of memory for {n_rows} {rows} of {len} at a time",
        config.flops_per_token(len) as f64 / 1e6,
        bytes(needed)
    );
    if let Some(free) = available_bytes.filter(|&free| free < needed) {
        line.push_str(&format!(", and only {} are free", bytes(free)));
    }
    print_line(&line);
}
