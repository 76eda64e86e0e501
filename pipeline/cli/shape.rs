//! `tinylm plan -v`: the parts and the cost of what a stage would make, where its kind can tell.

use std::path::PathBuf;

use tinylm_pipeline::{
    Forecast, MemoryNeed, Part,
    plan::{Planned, State},
    spec::StageSpec,
};
use tinylm_registry::Home;
use tinylm_reports::{bytes, thousands};

use crate::output::print_line;

pub(crate) fn print(home: &Home, stage: &StageSpec, planned: &[Planned]) {
    let input = |role: &str| artifact(home, stage, planned, role);
    let Some(forecast) = (stage.kind.forecast)(&stage.with, &input) else {
        return;
    };
    print_line("");
    match forecast {
        Forecast::Later(what) => print_line(format!("{}: {what}", stage.name)),
        Forecast::Model {
            parts,
            flops_per_token,
            memory,
        } => {
            print_table(&stage.name, &parts);
            print_cost(flops_per_token, &memory);
        }
    }
}

/// The files of the artifact that fills a role, if it is fresh.
fn artifact(home: &Home, stage: &StageSpec, planned: &[Planned], role: &str) -> Option<PathBuf> {
    let (_, names) = stage.inputs.iter().find(|(name, _)| name == role)?;
    let mut planned = planned.iter();
    match &planned.find(|one| Some(&one.name) == names.first())?.state {
        State::Fresh(record) => Some(home.artifact_files(&record.artifact).to_path_buf()),
        _ => None,
    }
}

fn print_table(name: &str, parts: &[Part]) {
    let n_all: usize = parts.iter().map(Part::n).sum();
    print_line(format!("{name}: {} parameters", thousands(n_all as u64)));
    for part in parts {
        let shape: Vec<String> = part.shape.iter().map(ToString::to_string).collect();
        let times = match part.n_times {
            1 => String::new(),
            n => format!("x {n}"),
        };
        print_line(format!(
            "  {:<24} {:>12} {times:>5} {:>12}",
            part.name,
            shape.join(" x "),
            thousands(part.n() as u64)
        ));
    }
}

fn print_cost(flops_per_token: u64, memory: &MemoryNeed) {
    let MemoryNeed {
        n_rows,
        len,
        bytes: needed,
        available_bytes,
    } = *memory;
    let rows = if n_rows == 1 { "row" } else { "rows" };
    let mut line = format!(
        "  {:.1} MFLOP a token; about {} of memory for {n_rows} {rows} of {len} at a time",
        flops_per_token as f64 / 1e6,
        bytes(needed)
    );
    if let Some(free) = available_bytes.filter(|&free| free < needed) {
        line.push_str(&format!(", and only {} are free", bytes(free)));
    }
    print_line(&line);
}
