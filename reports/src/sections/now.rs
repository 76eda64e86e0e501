//! What goes on at the moment: how far each running stage is and what it takes, and what others wait for.

use tinylm_registry::Outcome;

use crate::{
    block::{Block, Cell, Column, Fact, Holds, Section, Table},
    number::{amount, bytes, duration, number, thousands},
    places,
    report::{Going, Report, Stage},
};

/// Tells of the stages that are at work or wait; nothing of a run that has ended.
pub(super) fn section(report: &Report) -> Option<Section<'_>> {
    let waiting = waiting(report).map(|(stage, what)| Fact::text(stage, what));
    let waiting: Vec<Fact> = waiting.collect();
    let mut blocks: Vec<Block> = table(report).into_iter().collect();
    if !waiting.is_empty() {
        blocks.push(Block::Facts(waiting));
    }
    (!blocks.is_empty()).then(|| Section::new("Now", blocks))
}

/// Stages of a run that goes on which have not begun, and what they wait for.
pub fn waiting(report: &Report) -> impl Iterator<Item = (&str, &str)> {
    let stages = report.stages.iter().filter(|_| report.is_going());
    let pending = stages.filter(|stage| stage.row.outcome == Outcome::Pending);
    pending.filter_map(|stage| Some((&*stage.row.name, stage.reason()?)))
}

fn table(report: &Report) -> Option<Block<'_>> {
    let rows = at_work(report).map(|(stage, going)| row(report, stage, going));
    let mut rows: Vec<Vec<Cell>> = rows.collect();
    if rows.is_empty() {
        return None;
    }
    let mut columns = vec![
        Column::new("stage", Holds::Names),
        Column::new("done", Holds::Figures),
        Column::new("", Holds::Figures),
        Column::new("left", Holds::Figures),
        Column::new("loss", Holds::Figures),
        Column::new("tokens/s", Holds::Figures),
        Column::new("cores", Holds::Figures).spare(),
        Column::new("memory", Holds::Figures).spare(),
    ];
    let places: Vec<Cell> = at_work(report).map(|(stage, _)| place(stage)).collect();
    if places.iter().any(|place| *place != Cell::missing()) {
        columns.push(Column::new("place", Holds::Names));
        for (row, place) in rows.iter_mut().zip(places) {
            row.push(place);
        }
    }
    Some(Block::Table(Table::new(columns, rows)))
}

fn at_work(report: &Report) -> impl Iterator<Item = (&Stage, &Going)> {
    let stages = report.stages.iter();
    stages.filter_map(|stage| Some((stage, stage.going.as_ref()?)))
}

/// Where on a cluster it is: its job, its node, what it waits for.
fn place(stage: &Stage) -> Cell {
    let execution = stage.execution.as_ref();
    let place = execution.and_then(|execution| execution.place.clone());
    place.map_or_else(Cell::missing, Cell::quiet)
}

fn row(report: &Report, stage: &Stage, going: &Going) -> Vec<Cell> {
    let progress = &going.progress;
    let share = progress.total.filter(|total| *total > 0);
    let share = share.map(|total| progress.done as f64 / total as f64 * 100.0);
    let figure = |value: Option<f64>, written: &dyn Fn(f64) -> String| {
        value.map_or_else(Cell::missing, |value| Cell::figure(value, written(value)))
    };
    let seconds = stage.elapsed_seconds;
    let cores = progress.cpu_seconds.filter(|_| seconds > 2.0);
    vec![
        Cell::plain(stage.row.name.clone()).at(places::stage(report, stage)),
        match progress.unit.as_str() {
            "" => Cell::missing(),
            unit => Cell::plain(amount(progress.done, progress.total, unit)),
        },
        figure(share, &|share| format!("{share:.0} %")),
        figure(progress.seconds_left(), &duration),
        figure(going.loss, &number),
        figure(going.tokens_per_second, &|n| thousands(n as u64)),
        figure(cores.map(|cpu| cpu / seconds), &|n| format!("{n:.1}")),
        figure(progress.memory_bytes.map(|n| n as f64), &|n| {
            bytes(n as u64)
        }),
    ]
}
