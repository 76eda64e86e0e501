//! What is told of chance: how much of a difference the seeds explain, and how much the documents.
//!
//! Two sources, two sections, and no sum of them: an interval over seeds says nothing of other
//! documents, and one over documents nothing of other seeds.

use crate::{
    block::{Block, Cell, Column, Fact, Holds, Section, Table, Tone},
    comparison::{Comparison, DocumentDifference, Group, SeedDifference, Spread, Unit},
    metric::Better,
    number::{counted, number, thousands, with_interval},
    statistics::Estimate,
};

/// More groups than this are no story, but a table to look into.
const GROUPS_MAX: usize = 9;

/// Tells of seeds and documents, where anything is known of them.
pub(super) fn sections(comparison: &Comparison) -> Vec<Section<'_>> {
    let noise = &comparison.noise;
    let is_long = noise.groups.len() > GROUPS_MAX;
    let story = seeds(comparison).into_iter().chain(documents(comparison));
    let mut sections: Vec<Section<'_>> = story.map(|section| section.long(is_long)).collect();
    sections.extend(every_metric(comparison));
    sections
}

/// The metric that judges; the ones that were asked for, where some were.
fn is_told(comparison: &Comparison, stage: &str, metric: &str) -> bool {
    let main = comparison.main_row();
    comparison.is_asked || main.is_some_and(|main| (&*main.stage, &*main.metric) == (stage, metric))
}

fn seeds(comparison: &Comparison) -> Option<Section<'_>> {
    let noise = &comparison.noise;
    let of_metric = noise
        .spreads
        .chunk_by(|a, b| (&a.stage, &a.metric) == (&b.stage, &b.metric));
    let mut blocks = Vec::new();
    for spreads in of_metric {
        let (stage, metric) = (&spreads[0].stage, &spreads[0].metric);
        if !is_told(comparison, stage, metric) {
            continue;
        }
        blocks.push(Block::Title(format!("{stage}.{metric}"), String::new()));
        blocks.push(Block::Table(spread_table(spreads, &noise.groups)));
        let is_of = |one: &&SeedDifference| one.stage == *stage && one.metric == *metric;
        let facts = noise.seeds.iter().filter(is_of).map(|one| {
            let label = noise.groups[one.group].letters();
            Fact::text(label, seed_verdict(one, &noise.groups))
        });
        let facts: Vec<Fact> = facts.collect();
        if !facts.is_empty() {
            blocks.push(Block::Facts(facts));
        }
    }
    let remark = "runs that differ only in their seed are one group";
    (!blocks.is_empty()).then(|| Section::new("Seeds", blocks).remark(remark))
}

fn spread_table(spreads: &[Spread], groups: &[Group]) -> Table {
    let is_named = spreads
        .iter()
        .any(|spread| !groups[spread.group].name.is_empty());
    let mut columns = vec![Column::new("runs", Holds::Names)];
    if is_named {
        columns.push(Column::new("group", Holds::Codes));
    }
    columns.push(Column::new("seeds", Holds::Figures));
    columns.push(Column::new("mean", Holds::Figures));
    columns.push(Column::new("deviation", Holds::Figures));
    columns.push(Column::new("min", Holds::Figures).spare());
    columns.push(Column::new("max", Holds::Figures).spare());
    let row = |spread: &Spread| {
        let group = &groups[spread.group];
        let mut cells = vec![Cell::new(group.letters(), Tone::Strong)];
        if is_named {
            cells.push(Cell::plain(group.name.clone()));
        }
        cells.extend(spread_cells(spread));
        cells
    };
    Table::new(columns, spreads.iter().map(row).collect())
}

fn spread_cells(spread: &Spread) -> Vec<Cell> {
    let figure = |value: f64| Cell::figure(value, number(value));
    vec![
        Cell::figure(spread.n_seeds as f64, spread.n_seeds.to_string()),
        figure(spread.mean),
        spread.deviation.map_or_else(Cell::missing, figure),
        figure(spread.min),
        figure(spread.max),
    ]
}

/// Says how a group did against the first, and whether seeds alone would have done it.
fn seed_verdict(difference: &SeedDifference, groups: &[Group]) -> String {
    let first = groups[0].letters();
    let Some(estimate) = difference.estimate else {
        let told = way(difference.by, difference.better, &first);
        let size = number(difference.by.abs());
        return format!("{told} {size}; of one seed nothing can be said about the noise of seeds");
    };
    let told = interval(estimate, difference.better, &first, "");
    let over = match (difference.n_seeds, difference.is_paired) {
        ([n, _], true) => format!("{n} seeds, in pairs"),
        ([n, of_first], false) => format!("{n} seeds against {of_first}, not in pairs"),
    };
    let few = match difference.n_seeds.into_iter().min() {
        Some(2) => "; two seeds tell nearly nothing",
        _ => "",
    };
    let more = more(estimate);
    format!("{told}: {more} than seeds explain ({over}){few}")
}

fn more(estimate: Estimate) -> &'static str {
    match estimate.is_beyond_noise() {
        true => "more",
        false => "no more",
    }
}

fn way(by: f64, better: Better, than: &str) -> String {
    let way = if better.prefers(by, 0.0) {
        "better"
    } else {
        "worse"
    };
    format!("{way} than {than} by")
}

/// `better than A by 0.031, 0.022 to 0.040 at 95 %`.
fn interval(estimate: Estimate, better: Better, than: &str, unit: &str) -> String {
    let way = way(estimate.by, better, than);
    let seen = if estimate.by < 0.0 {
        estimate.turned()
    } else {
        estimate
    };
    let [by, low, high] = with_interval(seen.by, seen.low, seen.high);
    format!("{way} {by}{unit}, {low} to {high} at 95 %")
}

fn documents(comparison: &Comparison) -> Option<Section<'_>> {
    let noise = &comparison.noise;
    let mut blocks = Vec::new();
    for differences in noise.documents.chunk_by(|a, b| a.stage == b.stage) {
        let label = |one: &DocumentDifference| noise.groups[one.group].letters();
        let facts = differences.iter();
        let facts = facts.map(|one| Fact::text(label(one), document_verdict(one, &noise.groups)));
        let of_seeds = match differences.iter().any(|one| one.n_runs != [1, 1]) {
            true => "the mean loss of the group's seeds",
            false => "",
        };
        let title = format!("{}.loss", differences[0].stage);
        blocks.push(Block::Title(title, of_seeds.to_owned()));
        blocks.push(Block::Facts(facts.collect()));
    }
    for lacking in noise.unpaired.chunk_by(|a, b| a.stage == b.stage) {
        let told = "its losses of single documents are not here; running it again measures them";
        let groups = lacking.iter();
        let facts = groups.map(|one| Fact::text(noise.groups[one.group].letters(), told));
        let title = format!("{}.loss", lacking[0].stage);
        blocks.push(Block::Title(title, String::new()));
        blocks.push(Block::Facts(facts.collect()));
    }
    if blocks.is_empty() {
        return None;
    }
    if noise.spreads.is_empty() && !noise.documents.is_empty() {
        let told = "one of each: what another seed would change, nobody can say";
        blocks.push(Block::Facts(vec![Fact::text("seeds", told)]));
    }
    let remark = "the same ones, drawn again in pairs";
    Some(Section::new("Documents", blocks).remark(remark))
}

fn document_verdict(difference: &DocumentDifference, groups: &[Group]) -> String {
    /// A draw from fewer is too much like the next one.
    const FEW: usize = 20;
    let unit = match difference.unit {
        Unit::NatsPerToken => " nats per token",
        Unit::BitsPerByte => " bits per byte",
    };
    let estimate = difference.estimate;
    let told = interval(estimate, Better::Lower, &groups[0].letters(), unit);
    let n = difference.n_documents;
    let few = if n < FEW { ", which are few" } else { "" };
    let n = format!("{} documents", thousands(n as u64));
    let more = more(estimate);
    format!("{told}: {more} than the choice of documents explains ({n}{few})")
}

/// Every metric of every group, for whoever looks for one.
fn every_metric(comparison: &Comparison) -> Option<Section<'_>> {
    let noise = &comparison.noise;
    if noise.spreads.is_empty() || comparison.is_asked {
        return None;
    }
    let mut blocks = Vec::new();
    for spreads in noise.spreads.chunk_by(|a, b| a.stage == b.stage) {
        blocks.push(Block::Title(spreads[0].stage.clone(), String::new()));
        blocks.push(Block::Table(metric_table(spreads, comparison)));
    }
    let section = Section::new("Every metric over the seeds", blocks);
    let groups = counted(noise.groups.len(), "group");
    Some(section.remark(groups).detail())
}

fn metric_table(spreads: &[Spread], comparison: &Comparison) -> Table {
    let noise = &comparison.noise;
    let columns = vec![
        Column::new("metric", Holds::Codes),
        Column::new("runs", Holds::Names),
        Column::new("seeds", Holds::Figures).spare(),
        Column::new("mean", Holds::Figures),
        Column::new("deviation", Holds::Figures),
        Column::new("min", Holds::Figures).spare(),
        Column::new("max", Holds::Figures).spare(),
        Column::new("from the first", Holds::Figures),
    ];
    let row = |spread: &Spread| {
        let is_of = |one: &&SeedDifference| {
            (&one.stage, &one.metric, one.group) == (&spread.stage, &spread.metric, spread.group)
        };
        let mut cells = vec![
            Cell::plain(spread.metric.clone()),
            Cell::new(noise.groups[spread.group].letters(), Tone::Strong),
        ];
        cells.extend(spread_cells(spread));
        let difference = noise.seeds.iter().find(is_of);
        cells.push(difference.map_or_else(Cell::default, difference_cell));
        cells
    };
    let told = spreads
        .iter()
        .filter(|spread| !is_of_the_first(spread, spreads));
    Table {
        is_grouped: true,
        ..Table::new(columns, told.map(row).collect())
    }
}

/// Returns whether a group has a metric from the very artifacts of the first one, of which it is told.
fn is_of_the_first(spread: &Spread, spreads: &[Spread]) -> bool {
    let is_same = |first: &Spread| {
        let group = spread.group;
        *spread
            == Spread {
                group,
                ..first.clone()
            }
    };
    let mut firsts = spreads.iter().filter(|other| other.group == 0);
    spread.group > 0 && firsts.any(is_same)
}

fn difference_cell(difference: &SeedDifference) -> Cell {
    let Some(estimate) = difference.estimate else {
        return Cell::figure(difference.by, number(difference.by)).toned(Tone::Quiet);
    };
    let [by, low, high] = with_interval(estimate.by, estimate.low, estimate.high);
    let tone = match (
        estimate.is_beyond_noise(),
        difference.better.prefers(estimate.by, 0.0),
    ) {
        (false, _) => Tone::Quiet,
        (true, true) => Tone::Good,
        (true, false) => Tone::Bad,
    };
    Cell::figure(estimate.by, format!("{by} ({low} to {high})")).toned(tone)
}
