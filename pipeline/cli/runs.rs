//! `tinylm runs`: the runs that fit.

use chrono::{DateTime, Local};
use clap::Args;
use serde_json::{Value, json};
use tinylm_registry::{Filter, Metric, Registry, Run, RunQuery};

use crate::{
    console::seconds, failure::Failure, outcome::number, output::print_line, project::Project,
};

#[derive(Debug, Args)]
pub(crate) struct RunsArgs {
    /// Only runs whose name, experiment, tags or notes contain this
    pub(crate) search: Option<String>,
    /// Only runs for which this holds: 'loss < 3 and tag = "baby"'
    #[arg(long = "where", value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// Order by a field, setting or metric; `-NAME` for the largest first
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub(crate) sort: Option<String>,
    /// At most this many
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The number that a listing shows of a run, unless it is sorted by another: the first that is there.
const TELLING: [&str; 3] = ["perplexity", "validation_loss", "loss"];

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
            run.status.as_str().to_owned(),
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

pub(crate) fn run_json(registry: &Registry, run: &Run) -> Result<Value, Failure> {
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

pub(crate) fn tags(run: &Run) -> String {
    let tags: Vec<String> = run.tags.iter().map(|tag| format!("#{tag}")).collect();
    tags.join(" ")
}

pub(crate) fn run_time(run: &Run) -> String {
    run.ended_at.map_or_else(String::new, |ended| {
        seconds((ended - run.started_at) as f64 / 1000.0)
    })
}

pub(crate) fn day_and_time(ms: i64) -> String {
    let utc = DateTime::from_timestamp_millis(ms).unwrap_or_default();
    utc.with_timezone(&Local)
        .format("%Y-%m-%d %H:%M")
        .to_string()
}
