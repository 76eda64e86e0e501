//! Runs as a table: who they are, when they ran, and the number that tells most of each.

use std::collections::BTreeMap;

use serde_json::Value;
use tinylm_registry::{Fact, Judge, Metric, Registry, Run, Status};

use crate::{
    Error,
    block::{Cell, Column, Holds, Table, Tone},
    number::{duration, local_moment},
    places,
    sections::{status_cell, value_cell},
};

/// Runs below each other.
#[derive(Clone, Debug)]
pub struct Listing {
    pub table: Table,
    /// Which number is shown, where it is the same of all.
    pub headline: Option<String>,
}

/// Returns the table of these runs; `wanted` are names of metrics, the first that is one is shown
/// in the place of each run's headline.
pub fn listing(registry: &Registry, runs: &[Run], wanted: &[String]) -> Result<Listing, Error> {
    let judged = judged(registry, runs, wanted)?;
    let points = points(registry, runs)?;
    let shown = judged.iter().flatten().map(|(_, name)| name);
    let headline = shown.clone().next().cloned();
    let headline = headline.filter(|first| shown.clone().all(|name| name == first));
    let columns = vec![
        Column::new("run", Holds::Names),
        Column::new("experiment", Holds::Texts),
        Column::new("status", Holds::Names),
        Column::new("started", Holds::Names).spare(),
        Column::new("took", Holds::Figures),
        Column::new("headline", Holds::Figures),
        Column::new("", Holds::Codes),
        Column::new("of its sweep", Holds::Texts),
        Column::new("at work", Holds::Texts),
        Column::new("tags", Holds::Texts),
    ];
    let at_work: Result<Vec<String>, Error> =
        runs.iter().map(|run| at_work(registry, run)).collect();
    let rows = runs.iter().zip(judged).zip(points).zip(at_work?);
    let rows = rows.map(|(((run, judged), point), at_work)| {
        let seconds = run.ended_at.map(|end| (end - run.started_at) as f64 / 1e3);
        let (value, name) = judged.unzip();
        let tags: Vec<String> = run.tags.iter().map(|tag| format!("#{tag}")).collect();
        vec![
            Cell::new(run.name.clone(), Tone::Strong).at(places::run(&run.name)),
            Cell::plain(run.experiment.clone()),
            status_cell(run.status),
            Cell::quiet(local_moment(run.started_at)),
            Cell::plain(seconds.map(duration).unwrap_or_default()),
            value
                .map(|value| value_cell(value, None))
                .unwrap_or_default(),
            Cell::quiet(name.filter(|_| headline.is_none()).unwrap_or_default()),
            Cell::plain(point),
            Cell::plain(at_work),
            Cell::quiet(tags.join(" ")),
        ]
    });
    let table = Table::new(columns, rows.collect());
    Ok(Listing { table, headline })
}

/// The jobs of a cluster that a run has at work, or in the queue, by their stages.
fn at_work(registry: &Registry, run: &Run) -> Result<String, Error> {
    if run.status != Status::Running {
        return Ok(String::new());
    }
    let mut places: Vec<String> = Vec::new();
    let mut parts: BTreeMap<String, usize> = BTreeMap::new();
    for one in registry.executions(&run.id)? {
        let Some(place) = one.place.filter(|_| one.status == Status::Running) else {
            continue;
        };
        match one.stage.split_once('/') {
            Some((stage, _)) => *parts.entry(stage.to_owned()).or_default() += 1,
            None => places.push(format!("{}: {place}", one.stage)),
        }
    }
    let of_parts = parts.iter().map(|(stage, n)| format!("{stage}: {n} parts"));
    Ok(places
        .into_iter()
        .chain(of_parts)
        .collect::<Vec<_>>()
        .join("; "))
}

/// Returns a table with the values that these names have: fields of runs, settings and metrics.
pub fn columns(registry: &Registry, runs: &[Run], names: &[String]) -> Result<Table, Error> {
    let mut columns = vec![Column::new("run", Holds::Names)];
    let cells = |run: &Run| vec![Cell::new(run.name.clone(), Tone::Strong)];
    let mut rows: Vec<Vec<Cell>> = runs.iter().map(cells).collect();
    for name in names {
        columns.push(Column::new(name, Holds::Figures));
        let values = registry.values(runs, name)?;
        for (run, row) in runs.iter().zip(&mut rows) {
            row.push(fact_cell(values.get(&run.id).map_or(&[], Vec::as_slice)));
        }
    }
    Ok(Table::new(columns, rows))
}

/// A number as every table has it; of several values each.
fn fact_cell(facts: &[Fact]) -> Cell {
    match facts {
        [Fact::Number(number)] => value_cell(*number, None),
        facts => Cell::plain(facts.iter().map(Fact::text).collect::<Vec<_>>().join(" ")),
    }
}

/// Returns the number that each run is judged by, and its name.
fn judged(
    registry: &Registry,
    runs: &[Run],
    wanted: &[String],
) -> Result<Vec<Option<(f64, String)>>, Error> {
    let mut measured = Vec::new();
    for run in runs {
        let judge = Judge::of(registry.stages(&run.id)?.iter());
        measured.push((judge, registry.final_metrics(&run.id)?));
    }
    let meant =
        |(judge, metrics): &(Judge, Vec<Metric>), name: &str| judge.meant(names(metrics), name);
    let is_metric = |name: &&String| measured.iter().any(|run| meant(run, name).is_some());
    let asked = wanted.iter().find(is_metric);
    let mut judged = Vec::new();
    for (run, (judge, metrics)) in runs.iter().zip(&measured) {
        let found = match asked {
            Some(name) => judge.meant(names(metrics), name),
            None => {
                let chosen = registry.headline(&run.id)?;
                judge.headline(names(metrics), chosen.as_deref())
            }
        };
        judged.push(found.map(|idx| {
            let metric = &metrics[idx];
            (metric.value, format!("{}.{}", metric.stage, metric.name))
        }));
    }
    Ok(judged)
}

fn names(metrics: &[Metric]) -> impl Iterator<Item = (&str, &str)> + Clone {
    metrics.iter().map(|metric| (&*metric.stage, &*metric.name))
}

/// Writes a value of a sweep as `lr=0.001`; of a map each of its values.
fn words(name: &str, value: &Value) -> Vec<String> {
    let name = name.rsplit('.').next().unwrap_or_default();
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(name, value)| words(name, value))
            .collect(),
        Value::String(text) => vec![format!("{name}={text}")],
        _ => vec![format!("{name}={value}")],
    }
}

/// Returns the settings that make each run a point of its sweep; nothing for a run of its own.
fn points(registry: &Registry, runs: &[Run]) -> Result<Vec<String>, Error> {
    let mut points = Vec::new();
    for run in runs {
        let point = match &run.sweep {
            Some(_) => registry.sweep_point(&run.id)?,
            None => Vec::new(),
        };
        let words = point.iter().flat_map(|(name, value)| words(name, value));
        points.push(words.collect::<Vec<_>>().join(" "));
    }
    Ok(points)
}
