//! `tinylm show`: a run, or one of its stages.

use std::fs;

use clap::Args;
use serde_json::json;
use tinylm_registry::{Registry, Run, StageRow};
use tinylm_reports::{ReportOptions, bytes, clean, duration, sections};

use crate::{
    completions,
    failure::Failure,
    lookup::find_stage,
    output::{Shown, print_json, print_line},
    pager,
    project::{Project, now_ms},
    runs::run_json,
};

/// Lines of a stage's log that `show RUN/STAGE` prints.
const LOG_LINES_MAX: usize = 40;

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// RUN or RUN/STAGE
    #[arg(default_value = "@last", add = completions::runs())]
    pub(crate) run: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn show(project: &Project, args: &ShowArgs) -> Result<(), Failure> {
    let registry = project.registry()?;
    let (run, stage) = match args.run.split_once('/') {
        Some((run, stage)) => (run, Some(stage)),
        None => (args.run.as_str(), None),
    };
    let run = registry.find_run(run)?;
    match stage {
        Some(stage) => show_stage(project, &registry, &run, stage, args.json),
        None => show_run(project, &registry, &run, args.json),
    }
}

fn show_run(
    project: &Project,
    registry: &Registry,
    run: &Run,
    as_json: bool,
) -> Result<(), Failure> {
    if as_json {
        let mut row = run_json(registry, run)?;
        row["stages"] = json!(registry.stages(&run.id)?);
        row["params"] = json!(registry.params(&run.id)?);
        row["notes"] = json!(registry.notes(&run.id)?);
        row["events"] = json!(registry.events(&run.id)?);
        print_json(&row);
        return Ok(());
    }
    let options = ReportOptions::for_runs(1, now_ms(), &[]);
    let report = tinylm_reports::read(registry, run, &options)?;
    let document = sections::overview(&report);
    pager::print(
        project,
        Shown::report(&document, &project.terminal_options()),
    );
    Ok(())
}

fn show_stage(
    project: &Project,
    registry: &Registry,
    run: &Run,
    name: &str,
    as_json: bool,
) -> Result<(), Failure> {
    let stages = registry.stages(&run.id)?;
    let stage = find_stage(&stages, run, name)?;
    let execution = match &stage.execution_id {
        Some(id) => registry.execution(id)?,
        None => None,
    };
    if as_json {
        print_json(&json!({"stage": stage, "execution": execution}));
        return Ok(());
    }
    field("stage", &format!("{} of {}", stage.name, run.name));
    field("kind", &stage.kind);
    field(
        "outcome",
        &format!(
            "{}  {}",
            stage.outcome.as_str(),
            stage.reason.as_deref().unwrap_or("")
        ),
    );
    field("key", stage.key.as_deref().unwrap_or(""));
    if let Some(digest) = stage
        .artifact
        .as_deref()
        .and_then(|digest| digest.parse().ok())
    {
        field(
            "artifact",
            &project.shown(&project.home().artifact_files(&digest)),
        );
    }
    field("inputs", &stage.inputs.to_string());
    if let Some(execution) = &execution {
        let ended = execution
            .ended_at
            .map(|ended| (ended - execution.started_at) as f64 / 1000.0);
        field("time", &ended.map_or_else(String::new, duration));
        field(
            "cpu",
            &execution.cpu_seconds.map_or_else(String::new, duration),
        );
        field(
            "memory",
            &execution.peak_memory_bytes.map_or_else(String::new, bytes),
        );
        field("device", &execution.device);
        if let Some(place) = &execution.place {
            field("place", place);
        }
        if let Some(origin) = &execution.origin {
            field("origin", &origin.to_string());
        }
        print_line("");
        print_line("recipe:");
        for line in execution.recipe.lines() {
            print_line(format!("  {line}"));
        }
        print_log(project, &execution.id);
    }
    print_made(project, stage);
    Ok(())
}

/// Prints what a kind shows of what it made, while that is still there.
fn print_made(project: &Project, stage: &StageRow) {
    let kind = project.catalog.iter().find(|kind| kind.name == stage.kind);
    let digest = stage.artifact.as_deref();
    let digest = digest.and_then(|digest| digest.parse().ok());
    let (Some(kind), Some(digest)) = (kind, digest) else {
        return;
    };
    let files = project.home().artifact_files(&digest);
    let lines = match files.exists() {
        true => (kind.show)(&files).unwrap_or_else(|error| vec![error.message]),
        false => Vec::new(),
    };
    if !lines.is_empty() {
        print_line("");
    }
    for line in lines {
        print_line(line);
    }
}

/// Prints the end of what the stage wrote to its standard error, if it wrote anything.
fn print_log(project: &Project, execution_id: &str) {
    let path = project
        .home()
        .root()
        .join("logs")
        .join(format!("{execution_id}.log"));
    let Ok(log) = fs::read(&path) else { return };
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    print_line("");
    print_line(format!("log ({}):", project.shown(&path)));
    for line in &lines[lines.len().saturating_sub(LOG_LINES_MAX)..] {
        print_line(format!("  {line}"));
    }
}

fn field(name: &str, value: &str) {
    if !value.is_empty() {
        print_line(format!("{name:<11} {}", clean(value)));
    }
}
