//! The one list of what is told of a single stage: what it made, from what, and what it said.
//!
//! A page of a run tells a little of every stage; here is all of one, so that from a point of a curve
//! there is a way to the bytes and to what they were made from.

use super::{curves, now, outcome_tone, results, samples};
use crate::{
    block::{Block, Cell, Column, Document, Fact, Head, Holds, Section, Table, Tone},
    number::{bytes, duration, moment, short_digest},
    phrases::outcome_text,
    places,
    report::{Report, Stage},
    sources,
};

/// Tells of one stage of a report that keeps only what that one measured; `log` is what it wrote besides.
pub fn of_stage<'a>(report: &'a Report, stage: &'a Stage, log: &str) -> Document<'a> {
    let mut sections = Vec::new();
    if let Some(error) = stage.error() {
        sections.push(Section::new(
            "What failed",
            vec![Block::Text(error.to_owned())],
        ));
    }
    sections.extend(now::section(report));
    sections.push(Section::new(
        "What it made",
        vec![Block::Facts(made(report, stage))],
    ));
    sections.extend(curves(report, &[]));
    sections.extend(results(report, &[]));
    sections.extend(samples(report));
    sections.extend(made_from(report, stage));
    sections.extend(recipe(stage));
    if !log.trim().is_empty() {
        sections.push(Section::new("Log", vec![Block::Text(log.to_owned())]));
    }
    Document {
        head: Head {
            title: stage.row.name.clone(),
            of: report.run.name.clone(),
            status: Some(Cell::new(
                outcome_text(report, stage),
                outcome_tone(stage.row.outcome),
            )),
            version: report.run.version.clone(),
            ..Head::default()
        },
        sections,
    }
}

fn made(report: &Report, stage: &Stage) -> Vec<Fact> {
    let row = &stage.row;
    let mut facts = vec![Fact::text("kind", row.kind.clone())];
    let codes = [("artifact", &row.artifact), ("key", &row.key)];
    for (label, value) in codes {
        facts.extend(value.iter().map(|value| Fact::code(label, value.clone())));
    }
    if let Some(reason) = stage.reason() {
        facts.push(Fact::text("why it ran", reason));
    }
    let Some(execution) = &stage.execution else {
        return facts;
    };
    if execution.run_id != report.run.id && !stage.made_by.is_empty() {
        facts.push(Fact::text("made by", stage.made_by.clone()));
    }
    facts.push(Fact::text("began", moment(execution.started_at)));
    facts.push(Fact::text("time", duration(stage.elapsed_seconds)));
    let cpu = execution.cpu_seconds.map(duration);
    let memory = execution.peak_memory_bytes.map(bytes);
    facts.extend(cpu.map(|cpu| Fact::text("cpu", cpu)));
    facts.extend(memory.map(|memory| Fact::text("peak memory", memory)));
    facts.push(Fact::text("device", execution.device.clone()));
    let place = execution.place.clone();
    facts.extend(place.map(|place| Fact::text("place", place)));
    facts
}

/// The stages that it read, which have a place of their own, and where its bytes came from.
fn made_from<'a>(report: &Report, stage: &Stage) -> Option<Section<'a>> {
    let mut blocks = Vec::new();
    let inputs = stage.row.inputs.as_object();
    let inputs = inputs.into_iter().flatten().flat_map(|(role, names)| {
        let names = names.as_array().into_iter().flatten();
        names.filter_map(move |name| Some((role, name.as_str()?)))
    });
    let row = |(role, name): (&String, &str)| {
        let read = report.stage(name);
        let artifact = read.and_then(|stage| stage.row.artifact.clone());
        let place = format!("{}/{name}", places::run(&report.run.name));
        vec![
            Cell::quiet(role.clone()),
            Cell::plain(name).at(place),
            Cell::quiet(read.map(|stage| stage.row.kind.clone()).unwrap_or_default()),
            Cell {
                whole: artifact.clone(),
                ..Cell::quiet(short_digest(&artifact.unwrap_or_default()))
            },
        ]
    };
    let rows: Vec<Vec<Cell>> = inputs.map(row).collect();
    if !rows.is_empty() {
        let columns = vec![
            Column::new("as", Holds::Names),
            Column::new("stage", Holds::Names),
            Column::new("kind", Holds::Names),
            Column::new("artifact", Holds::Digests),
        ];
        blocks.push(Block::Table(Table::new(columns, rows)));
    }
    let origin = stage
        .execution
        .as_ref()
        .and_then(|execution| execution.origin.as_ref());
    if let Some(origin) = origin {
        let facts = sources::facts(origin).into_iter();
        let facts = facts.map(|(label, value)| Fact::code(label, value));
        blocks.push(Block::Facts(facts.collect()));
    }
    let readers = report
        .stages
        .iter()
        .filter(|other| other.row.reads().contains(&&*stage.row.name));
    let readers: Vec<Vec<Cell>> = readers
        .map(|reader| {
            vec![
                Cell::plain(reader.row.name.clone()).at(places::stage(report, reader)),
                Cell::new(
                    outcome_text(report, reader),
                    outcome_tone(reader.row.outcome),
                ),
            ]
        })
        .collect();
    if !readers.is_empty() {
        blocks.push(Block::Title("Read by".to_owned(), String::new()));
        let columns = vec![
            Column::new("stage", Holds::Names),
            Column::new("outcome", Holds::Names),
        ];
        blocks.push(Block::Table(Table::new(columns, readers)));
    }
    (!blocks.is_empty()).then(|| Section::new("Made from", blocks))
}

/// All that its key is made of.
fn recipe<'a>(stage: &Stage) -> Option<Section<'a>> {
    let recipe = &stage.execution.as_ref()?.recipe;
    let lines = recipe.lines().filter_map(|line| line.split_once(" = "));
    let rows: Vec<Vec<Cell>> = lines
        .map(|(path, value)| vec![Cell::plain(path), Cell::new(value, Tone::Plain)])
        .collect();
    if rows.is_empty() {
        return None;
    }
    let columns = vec![
        Column::new("part", Holds::Codes),
        Column::new("value", Holds::Codes),
    ];
    let table = Block::Table(Table::new(columns, rows));
    Some(Section::new("Recipe", vec![table]).remark("all that its key is made of"))
}
