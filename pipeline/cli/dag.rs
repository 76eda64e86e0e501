//! `tinylm dag`: an experiment's graph as text, Mermaid, DOT or JSON.

use clap::{Args, ValueEnum};
use serde_json::json;
use tinylm_pipeline::spec::{Experiment, StageSpec};

use crate::{experiment::FileArgs, failure::Failure, output::print_line, project::Project};

#[derive(Debug, Args)]
pub(crate) struct DagArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// How to draw it
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: DagFormat,
    /// Print JSON
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum DagFormat {
    Text,
    Mermaid,
    Dot,
    #[value(hide = true)]
    Json,
}

pub(crate) fn dag(project: &Project, args: &DagArgs) -> Result<(), Failure> {
    let experiments = args.file.load(project)?;
    // The points of a sweep differ in settings, never in shape.
    let Some(experiment) = experiments.first() else {
        return Ok(());
    };
    let format = if args.json {
        DagFormat::Json
    } else {
        args.format
    };
    let text = match format {
        DagFormat::Text => as_text(experiment),
        DagFormat::Mermaid => as_mermaid(experiment),
        DagFormat::Dot => as_dot(experiment),
        DagFormat::Json => as_json(experiment),
    };
    print_line(text.trim_end());
    Ok(())
}

/// One line a stage, with what it reads; a stage stands after everything it reads.
fn as_text(experiment: &Experiment) -> String {
    let stages = &experiment.stages;
    let width = |text: fn(&StageSpec) -> &str| {
        let widths = stages.iter().map(|stage| text(stage).chars().count());
        widths.max().unwrap_or(0)
    };
    let name_width = width(|stage| &stage.name);
    let kind_width = width(|stage| stage.kind.name);
    let mut text = String::new();
    for stage in stages {
        let reads: Vec<String> = edges(stage)
            .map(|(role, input)| match stage.inputs.len() {
                1 => input.to_owned(),
                _ => format!("{input} as {role}"),
            })
            .collect();
        let arrow = if reads.is_empty() { "" } else { "<- " };
        let line = format!(
            "{:name_width$}  {:kind_width$}  {arrow}{}",
            stage.name,
            stage.kind.name,
            reads.join(", ")
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn as_mermaid(experiment: &Experiment) -> String {
    let mut text = "flowchart TD\n".to_owned();
    let id = |name: &str| position(experiment, name);
    for stage in &experiment.stages {
        let label = format!(
            "{}<br/><small>{}</small>",
            escaped(&stage.name),
            stage.kind.name
        );
        text.push_str(&format!("  s{}[\"{label}\"]\n", id(&stage.name)));
    }
    for stage in &experiment.stages {
        for (_, input) in edges(stage) {
            text.push_str(&format!("  s{} --> s{}\n", id(input), id(&stage.name)));
        }
    }
    text
}

fn as_dot(experiment: &Experiment) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = format!(
        "digraph {} {{\n  node [shape=box];\n",
        quoted(&experiment.name)
    );
    for stage in &experiment.stages {
        let label = quoted(&format!("{} ({})", stage.name, stage.kind.name));
        text.push_str(&format!("  {} [label={label}];\n", quoted(&stage.name)));
    }
    for stage in &experiment.stages {
        for (role, input) in edges(stage) {
            let (from, to) = (quoted(input), quoted(&stage.name));
            text.push_str(&format!("  {from} -> {to} [label={}];\n", quoted(role)));
        }
    }
    text.push_str("}\n");
    text
}

fn as_json(experiment: &Experiment) -> String {
    let stages = experiment.stages.iter().map(|stage| {
        let inputs: serde_json::Map<_, _> = stage
            .inputs
            .iter()
            .map(|(role, names)| (role.clone(), json!(names)))
            .collect();
        json!({"stage": stage.name, "kind": stage.kind.name, "inputs": inputs})
    });
    serde_json::Value::Array(stages.collect()).to_string()
}

fn edges(stage: &StageSpec) -> impl Iterator<Item = (&str, &str)> {
    let roles = stage.inputs.iter();
    roles.flat_map(|(role, names)| names.iter().map(move |name| (role.as_str(), name.as_str())))
}

fn position(experiment: &Experiment, name: &str) -> usize {
    let found = experiment
        .stages
        .iter()
        .position(|stage| stage.name == name);
    found.unwrap_or(usize::MAX)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('"', "&quot;")
        .replace('<', "&lt;")
}
