//! `tinylm show`: a run, or one of its stages.

use std::fs;

use clap::Args;
use serde_json::json;
use tinylm_registry::{Registry, Run, StageRow};

use crate::{
    console::{bytes, seconds},
    failure::Failure,
    lookup::find_stage,
    outcome::printable,
    output::print_line,
    project::Project,
    runs::{day_and_time, run_json, run_time, tags},
};

/// Lines of a stage's log that `show RUN/STAGE` prints.
const LOG_LINES_MAX: usize = 40;

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// RUN or RUN/STAGE
    #[arg(default_value = "@last")]
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
    let stages = registry.stages(&run.id)?;
    if as_json {
        let mut row = run_json(registry, run)?;
        row["stages"] = json!(stages);
        row["params"] = json!(registry.params(&run.id)?);
        row["notes"] = json!(registry.notes(&run.id)?);
        row["events"] = json!(registry.events(&run.id)?);
        print_line(&row.to_string());
        return Ok(());
    }
    field("run", &format!("{}  ({})", run.name, run.id));
    field(
        "experiment",
        &format!("{}  {}", run.experiment, project.shown(run.file.as_ref())),
    );
    field("status", run.status.as_str());
    field(
        "started",
        &format!("{}  {}", day_and_time(run.started_at), run_time(run)),
    );
    field(
        "seed",
        &run.seed.map_or_else(String::new, |seed| seed.to_string()),
    );
    field("host", run.host["name"].as_str().unwrap_or(""));
    let dirty = if run.git_dirty == Some(true) {
        " with changes"
    } else {
        ""
    };
    field(
        "git",
        &run.git_commit
            .as_ref()
            .map_or_else(String::new, |commit| format!("{commit}{dirty}")),
    );
    field("version", &run.version);
    field("command", &run.command);
    field("tags", &tags(run));
    for note in registry.notes(&run.id)? {
        field("note", &format!("{}  {}", day_and_time(note.at), note.text));
    }
    print_line("");
    let width = stages
        .iter()
        .map(|stage| stage.name.chars().count())
        .max()
        .unwrap_or(0);
    for stage in &stages {
        let reason = stage.reason.as_deref().unwrap_or("");
        let outcome = stage.outcome.as_str();
        let line = format!(
            "{outcome:<9}{:width$}  {:<9}  {reason}",
            stage.name, stage.kind
        );
        print_line(line.trim_end());
    }
    let metrics = registry.final_metrics(&run.id)?;
    if !metrics.is_empty() {
        print_line("");
    }
    for metric in metrics {
        print_line(&format!(
            "{:width$}  {}  {}",
            metric.stage,
            metric.name,
            tinylm_reports::number(metric.value)
        ));
    }
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
        print_line(&json!({"stage": stage, "execution": execution}).to_string());
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
        field("time", &ended.map_or_else(String::new, seconds));
        field(
            "cpu",
            &execution.cpu_seconds.map_or_else(String::new, seconds),
        );
        field(
            "memory",
            &execution.peak_memory_bytes.map_or_else(String::new, bytes),
        );
        field("device", &execution.device);
        if let Some(origin) = &execution.origin {
            field("origin", &origin.to_string());
        }
        print_line("");
        print_line("recipe:");
        for line in execution.recipe.lines() {
            print_line(&format!("  {line}"));
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
        print_line(&printable(&line));
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
    print_line(&format!("log ({}):", project.shown(&path)));
    for line in &lines[lines.len().saturating_sub(LOG_LINES_MAX)..] {
        print_line(&format!("  {}", printable(line)));
    }
}

fn field(name: &str, value: &str) {
    if !value.is_empty() {
        print_line(&format!("{name:<11} {value}"));
    }
}
