//! What goes on at the moment: how far each running stage is, and what it takes.

use crate::{
    block::{Block, Cell, Column, Holds, Section, Table},
    number::{amount, bytes, duration, number, thousands},
    places,
    report::{Going, Report, Stage},
};

/// Tells of the stages that are at work; nothing of a run that has ended.
pub(super) fn section(report: &Report) -> Option<Section<'_>> {
    let at_work = report.stages.iter().filter_map(|stage| {
        let going = stage.going.as_ref()?;
        Some(row(report, stage, going))
    });
    let rows: Vec<Vec<Cell>> = at_work.collect();
    if rows.is_empty() {
        return None;
    }
    let columns = vec![
        Column::new("stage", Holds::Names),
        Column::new("done", Holds::Figures),
        Column::new("", Holds::Figures),
        Column::new("left", Holds::Figures),
        Column::new("loss", Holds::Figures),
        Column::new("tokens/s", Holds::Figures),
        Column::new("cores", Holds::Figures).spare(),
        Column::new("memory", Holds::Figures).spare(),
    ];
    let table = Block::Table(Table::new(columns, rows));
    Some(Section::new("Now", vec![table]))
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
        Cell::plain(amount(progress.done, progress.total, &progress.unit)),
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
