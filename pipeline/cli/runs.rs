//! `tinylm runs`, `show`, `tag`, `note` and `rm`: looking into the registry.

use std::fs;

use chrono::{DateTime, Local};
use serde_json::{Value, json};
use tinylm_registry::{Filter, Metric, Registry, Run, RunQuery, StageRow, Status};

use crate::{
    args::{NoteArgs, RmArgs, RunsArgs, ShowArgs, TagArgs},
    console::{bytes, seconds},
    failure::Failure,
    outcome::number,
    print_line,
    project::{Project, now_ms, quoted},
};

/// What a listing shows of a run's numbers, unless it is sorted by another: the first that is there.
const TELLING: [&str; 3] = ["perplexity", "validation_loss", "loss"];

/// Lines of a stage's log that `show RUN/STAGE` prints.
const LOG_LINES_MAX: usize = 40;

pub(crate) fn runs(project: &Project, args: &RunsArgs) -> Result<(), Failure> {
    let registry = project.registry()?;
    let filter = args.filter.as_deref().map(Filter::parse).transpose();
    let query = RunQuery {
        filter: filter?,
        search: args.search.clone(),
        sort: args.sort.clone(),
        limit: args.limit,
    };
    let runs = registry.runs(&query)?;
    if args.json {
        let rows: Result<Vec<Value>, Failure> =
            runs.iter().map(|run| run_json(&registry, run)).collect();
        print_line(&Value::Array(rows?).to_string());
        return Ok(());
    }
    if runs.is_empty() {
        print_line("no run fits");
        return Ok(());
    }
    for line in listing(&registry, &runs, args.sort.as_deref())? {
        print_line(&line);
    }
    Ok(())
}

/// The runs as a table: who they are, when they ran, and the number that tells most.
fn listing(registry: &Registry, runs: &[Run], sort: Option<&str>) -> Result<Vec<String>, Failure> {
    let metrics: Result<Vec<Vec<Metric>>, _> = runs
        .iter()
        .map(|run| registry.final_metrics(&run.id))
        .collect();
    let metrics = metrics?;
    let wanted = sort.map(|name| name.trim_start_matches('-'));
    let (telling, values) = wanted
        .into_iter()
        .chain(TELLING)
        .map(|name| (name, last_of(&metrics, name)))
        .find(|(_, values)| values.iter().any(|value| !value.is_empty()))
        .unwrap_or(("", vec![String::new(); runs.len()]));
    let heading = [
        "run",
        "experiment",
        "status",
        "started",
        "took",
        telling,
        "",
    ];
    let mut rows = vec![heading.map(str::to_owned)];
    rows.extend(runs.iter().zip(values).map(|(run, value)| {
        [
            run.name.clone(),
            run.experiment.clone(),
            word(run.status).to_owned(),
            day_and_time(run.started_at),
            run_time(run),
            value,
            tags(run),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; 7] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| match column {
            // Figures stand under each other.
            4 | 5 => format!("{cell:>width$}"),
            _ => format!("{cell:width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    Ok(lines.collect())
}

/// For each run, the last metric of this name (`loss`) or of this stage's name (`base.loss`).
fn last_of(metrics: &[Vec<Metric>], name: &str) -> Vec<String> {
    let is_meant = |metric: &&Metric| {
        metric.name == name || name == format!("{}.{}", metric.stage, metric.name)
    };
    let of_runs = metrics.iter().map(|of_run| of_run.iter().rfind(is_meant));
    of_runs
        .map(|found| found.map_or_else(String::new, |metric| number(metric.value)))
        .collect()
}

fn run_json(registry: &Registry, run: &Run) -> Result<Value, Failure> {
    let mut row = serde_json::to_value(run).unwrap_or_default();
    let metrics = registry.final_metrics(&run.id)?;
    let metrics = metrics.iter().map(|metric| {
        (
            format!("{}.{}", metric.stage, metric.name),
            json!(metric.value),
        )
    });
    row["metrics"] = Value::Object(metrics.collect());
    Ok(row)
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
    field("status", word(run.status));
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
    Ok(())
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
        print_line(&format!("  {}", crate::outcome::printable(line)));
    }
}

pub(crate) fn find_stage<'a>(
    stages: &'a [StageRow],
    run: &Run,
    name: &str,
) -> Result<&'a StageRow, Failure> {
    stages
        .iter()
        .find(|stage| stage.name == name)
        .ok_or_else(|| {
            let names = || stages.iter().map(|stage| stage.name.as_str());
            let failure = Failure::wrong(format!("{} has no stage `{name}`", run.name));
            match tinylm_pipeline::spec::nearest(name, names()) {
                Some(near) => failure.help(format!("did you mean `{near}`?")),
                None => failure.help(format!("it has {}", quoted(names()))),
            }
        })
}

pub(crate) fn tag(project: &Project, args: &TagArgs) -> Result<(), Failure> {
    let registry = project.registry_to_write()?;
    let run = registry.find_run(&args.run)?;
    for tag in &args.tags {
        match args.delete {
            false => registry.add_tag(&run.id, tag)?,
            true if registry.remove_tag(&run.id, tag)? => {}
            true => {
                let failure = Failure::wrong(format!("{} has no tag `{tag}`", run.name));
                return Err(failure.help(match run.tags.is_empty() {
                    true => "it has none".to_owned(),
                    false => format!("it has {}", quoted(run.tags.iter().map(String::as_str))),
                }));
            }
        }
    }
    Ok(())
}

pub(crate) fn note(project: &Project, args: &NoteArgs) -> Result<(), Failure> {
    let registry = project.registry_to_write()?;
    let run = registry.find_run(&args.run)?;
    Ok(registry.add_note(&run.id, &args.text.join(" "), now_ms())?)
}

pub(crate) fn rm(project: &Project, args: &RmArgs) -> Result<(), Failure> {
    let registry = project.registry_to_write()?;
    // All are looked at before any is removed: a typo removes nothing.
    let runs = find_runs(&registry, &args.runs)?;
    let running = runs.iter().filter(|run| run.status == Status::Running);
    let refused = running.map(|run| {
        Failure::wrong(format!("{} is still going on", run.name))
            .help("stop it with Ctrl-C where it runs, then remove it")
    });
    Failure::all(refused.collect())?;
    for run in runs {
        registry.remove_run(&run.id, now_ms())?;
        if !project.global.quiet {
            print_line(&format!(
                "removed {}; `tinylm gc` frees what only it needed",
                run.name
            ));
        }
    }
    Ok(())
}

/// Finds every run that is named, or tells of all that are not there.
pub(crate) fn find_runs<'a>(
    registry: &Registry,
    names: impl IntoIterator<Item = &'a String>,
) -> Result<Vec<Run>, Failure> {
    let (mut runs, mut unknown) = (Vec::new(), Vec::new());
    for name in names {
        match registry.find_run(name) {
            Ok(run) => runs.push(run),
            Err(error) => unknown.push(Failure::from(error)),
        }
    }
    Failure::all(unknown).map(|()| runs)
}

fn field(name: &str, value: &str) {
    if !value.is_empty() {
        print_line(&format!("{name:<11} {value}"));
    }
}

fn word(status: Status) -> &'static str {
    status.as_str()
}

fn tags(run: &Run) -> String {
    let tags: Vec<String> = run.tags.iter().map(|tag| format!("#{tag}")).collect();
    tags.join(" ")
}

fn run_time(run: &Run) -> String {
    run.ended_at.map_or_else(String::new, |ended| {
        seconds((ended - run.started_at) as f64 / 1000.0)
    })
}

fn day_and_time(ms: i64) -> String {
    let utc = DateTime::from_timestamp_millis(ms).unwrap_or_default();
    utc.with_timezone(&Local)
        .format("%Y-%m-%d %H:%M")
        .to_string()
}
