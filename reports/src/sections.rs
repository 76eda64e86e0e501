//! The one list of what is told of a run, in the order in which it is told.
//!
//! The story comes first (what failed, what it cost, curves, results, samples, warnings, stages,
//! settings), then what it rests on. Several runs have a list of their own in `compared`.

mod compared;
mod fitted;
mod noise;
mod now;
mod parallel;
mod stage;

pub use compared::of_comparison;
pub use fitted::of_fit;
pub use now::waiting;
pub use stage::of_stage;

use tinylm_registry::{Level, Outcome, Param, Status, load::is_load};

use crate::{
    block::{
        Answer, Block, Cell, Chart, Column, Document, Event, Fact, Graph, Head, Holds, Node,
        Prompt, Samples, Section, Series, Table, Tone, Value,
    },
    curve::Curve,
    headline,
    metric::{Part, is_error, is_result, selects},
    number::{bytes, counted, duration, moment, number, short_digest, thousands, with_error},
    parts::PartTable,
    phrases::{code_line, cost_line, machine_line, outcome_text, time_line},
    places,
    report::{Final, Report, Sample, Stage},
    sources,
};

/// Tells of one run; `wanted` are the metrics asked for by name, all when empty.
pub fn of_report<'a>(report: &'a Report, wanted: &[String]) -> Document<'a> {
    let mut sections = Vec::new();
    sections.extend(failures(report));
    sections.extend(now::section(report));
    sections.push(run(report));
    sections.extend(curves(report, wanted));
    sections.extend(results(report, wanted));
    sections.extend(samples(report));
    sections.extend(warnings(report));
    sections.extend(stages(report));
    sections.extend(settings(report));
    sections.push(circumstances(report));
    sections.extend(made_from(report));
    Document {
        head: head(report),
        sections,
    }
}

/// Tells of one run what changes while it goes on.
pub fn at_a_glance(report: &Report) -> Document<'_> {
    let mut sections = Vec::new();
    sections.extend(failures(report));
    sections.extend(now::section(report));
    sections.extend(curves(report, &[]));
    sections.extend(samples(report).pop());
    sections.extend(warnings(report));
    Document {
        head: head(report),
        sections,
    }
}

/// Tells of one run what belongs on the card of a model that it made: what was measured and said,
/// with what settings, and where the data comes from. Whose machine it was and what its folders are
/// called is nobody else's business.
pub(crate) fn of_card(report: &Report) -> Document<'_> {
    let mut sections = Vec::new();
    sections.extend(results(report, &[]));
    sections.extend(samples(report));
    sections.extend(made_from(report));
    sections.extend(settings(report));
    Document {
        head: head(report),
        sections,
    }
}

/// Tells of one run what stands in lines and tables: no curves, no samples.
pub fn overview(report: &Report) -> Document<'_> {
    let mut document = of_report(report, &[]);
    document.sections.retain(|section| {
        let is_picture = |block: &Block<'_>| matches!(block, Block::Chart(_) | Block::Samples(_));
        !section.blocks.iter().any(is_picture)
    });
    for section in &mut document.sections {
        section.is_detail = false;
        section.is_long = false;
        section.blocks = section.blocks.drain(..).flat_map(unfolded).collect();
    }
    document
}

/// Opens a fold of facts; one that holds a table stays.
fn unfolded(block: Block<'_>) -> Vec<Block<'_>> {
    match block {
        Block::Fold(title, mut blocks) if matches!(blocks[..], [Block::Facts(_)]) => {
            blocks.insert(0, Block::Title(title, String::new()));
            blocks
        }
        block => vec![block],
    }
}

pub(crate) fn status_cell(status: Status) -> Cell {
    let tone = match status {
        Status::Done => Tone::Good,
        Status::Running | Status::Interrupted | Status::Cancelled => Tone::Warn,
        Status::Failed => Tone::Bad,
    };
    Cell::new(status.as_str(), tone)
}

/// Returns a measured value as a cell; what is not a number is bad.
pub(crate) fn value_cell(value: f64, error: Option<f64>) -> Cell {
    let tone = if value.is_finite() {
        Tone::Plain
    } else {
        Tone::Bad
    };
    let text = error.map_or_else(|| number(value), |error| with_error(value, error));
    Cell::figure(value, text).toned(tone)
}

fn head(report: &Report) -> Head {
    let run = &report.run;
    let mut figures: Vec<Fact> = headline::figures(report)
        .into_iter()
        .map(|last| {
            let label = format!("{}.{}", last.stage, last.metric);
            Fact::text(label, number(last.value))
        })
        .collect();
    figures.push(Fact::text("time", duration(report.elapsed_seconds)));
    Head {
        title: run.name.clone(),
        of: run.experiment.clone(),
        status: Some(status_cell(run.status)),
        question: report.question.clone(),
        verdict: Vec::new(),
        figures,
        version: run.version.clone(),
    }
}

fn failures(report: &Report) -> Option<Section<'_>> {
    let mut blocks = Vec::new();
    for stage in &report.stages {
        if let Some(error) = stage.error() {
            let title = format!("{} {}", stage.row.name, stage.row.outcome);
            blocks.push(Block::Title(title, String::new()));
            blocks.push(Block::Text(error.to_owned()));
        }
    }
    (!blocks.is_empty()).then(|| Section::new("What failed", blocks))
}

fn run(report: &Report) -> Section<'_> {
    let run = &report.run;
    let mut facts = vec![
        Fact::text("started", time_line(report)),
        Fact::text("cost", cost_line(report)),
    ];
    facts.extend(run.seed.map(|seed| Fact::text("seed", seed.to_string())));
    let sweep = run.sweep.as_ref();
    facts.extend(sweep.map(|sweep| Fact::code("sweep", sweep.clone())));
    if !run.tags.is_empty() {
        facts.push(Fact {
            label: "tags".to_owned(),
            value: Value::Tags(run.tags.clone()),
        });
    }
    let mut blocks = vec![Block::Facts(facts)];
    for note in &report.notes {
        blocks.push(Block::Title("Note".to_owned(), moment(note.at)));
        blocks.push(Block::Text(note.text.clone()));
    }
    Section::new("Run", blocks)
}

/// Where and with what the run was carried out.
fn circumstances(report: &Report) -> Section<'_> {
    let run = &report.run;
    let facts = vec![
        Fact::text("code", code_line(run)),
        Fact::text("machine", machine_line(run)),
        Fact::code("command", run.command.clone()),
        Fact::code("file", run.file.clone()),
        Fact::code("uuid", run.id.clone()),
    ];
    Section::new("How it was run", vec![Block::Facts(facts)]).detail()
}

fn curves<'a>(report: &'a Report, wanted: &[String]) -> Option<Section<'a>> {
    let mut charts: Vec<Chart<'_>> = Vec::new();
    for stage in &report.stages {
        let name = &stage.row.name;
        let curves = report.curves.iter().filter(|curve| {
            curve.stage == *name && is_drawn(curve) && selects(wanted, name, &curve.metric)
        });
        let (losses, others): (Vec<&Curve>, Vec<&Curve>) =
            curves.partition(|curve| curve.is_loss());
        if !losses.is_empty() {
            charts.push(chart(report, name, "loss", true, &losses));
        }
        let is_asked = !wanted.is_empty();
        charts.extend(
            others
                .iter()
                .map(|&curve| chart(report, name, &curve.metric, is_asked, &[curve])),
        );
    }
    // Large ones first: small ones then stand beside each other.
    charts.sort_by_key(|chart| (!chart.is_main, is_load(&chart.metric)));
    let blocks: Vec<Block<'_>> = charts.into_iter().map(Block::Chart).collect();
    (!blocks.is_empty()).then(|| Section::new("Curves", blocks))
}

/// Returns whether there is anything to see of a curve: one look at the machine is no curve.
fn is_drawn(curve: &Curve) -> bool {
    let says_nothing = curve.points.is_empty() || (curve.is_load() && curve.n_points == 1);
    !says_nothing
}

fn chart<'a>(
    report: &Report,
    title: &str,
    metric: &str,
    is_main: bool,
    curves: &[&'a Curve],
) -> Chart<'a> {
    let is_sparse = |curve: &Curve| curves.iter().any(|other| curve.is_sparse_beside(other));
    let series = curves.iter().enumerate().map(|(idx, &curve)| Series {
        key: format!("{} {}", curve.stage, curve.metric),
        name: curve.metric.clone(),
        at: places::curve(report, curve),
        letter: None,
        colour: idx,
        curve,
        has_marks: curve.n_points < 2 || idx > 0 && is_sparse(curve),
        rank: idx,
    });
    Chart {
        title: title.to_owned(),
        metric: metric.to_owned(),
        is_main,
        series: series.collect(),
    }
}

/// Measurements as tables; mere counts are folded away.
fn results<'a>(report: &'a Report, wanted: &[String]) -> Option<Section<'a>> {
    let is_asked = !wanted.is_empty();
    let shown = report.finals.iter().filter(|last| {
        let is_whole = Part::of(&last.metric).is_none() && !is_error(&last.metric);
        selects(wanted, &last.stage, &last.metric) && (is_asked || is_whole)
    });
    let (results, counts): (Vec<&Final>, Vec<&Final>) =
        shown.partition(|last| is_asked || is_result(&last.metric));
    let mut blocks = Vec::new();
    if !results.is_empty() {
        blocks.push(Block::Table(result_table(report, &results)));
    }
    if !is_asked {
        for table in report.part_tables() {
            let title = format!("{} by {}", table.stage, table.by);
            blocks.push(Block::Title(title, String::new()));
            blocks.push(Block::Table(part_table(&table)));
        }
    }
    if !counts.is_empty() {
        let title = counted(counts.len(), "count");
        blocks.push(Block::Fold(title, vec![Block::Facts(count_facts(&counts))]));
    }
    (!blocks.is_empty()).then(|| Section::new("Results", blocks))
}

fn result_table(report: &Report, results: &[&Final]) -> Table {
    let columns = vec![
        Column::new("stage", Holds::Names),
        Column::new("metric", Holds::Names),
        Column::new("value", Holds::Figures),
    ];
    let row = |last: &&Final| {
        vec![
            Cell::quiet(last.stage.clone()),
            Cell::plain(last.metric.clone()),
            value_cell(last.value, report.error_of(last)),
        ]
    };
    Table {
        is_grouped: true,
        ..Table::new(columns, results.iter().map(row).collect())
    }
}

fn part_table(parts: &PartTable<'_>) -> Table {
    let mut columns = vec![Column::new(parts.by, Holds::Codes)];
    let shown = || (0..parts.metrics.len()).filter(|idx| parts.is_shown(*idx));
    columns.extend(shown().map(|idx| Column::new(parts.metrics[idx], Holds::Figures)));
    let row = |(part_idx, (name, _)): (usize, &(&str, Vec<Option<f64>>))| {
        let cells = shown().map(|idx| {
            let value = parts.value(part_idx, idx);
            let error = parts.error(part_idx, idx);
            value.map_or_else(Cell::missing, |value| value_cell(value, error))
        });
        std::iter::once(Cell::plain(*name)).chain(cells).collect()
    };
    Table::new(columns, parts.parts.iter().enumerate().map(row).collect())
}

fn count_facts(counts: &[&Final]) -> Vec<Fact> {
    let of_stages = counts.chunk_by(|a, b| a.stage == b.stage);
    let fact = |of_stage: &[&Final]| {
        let words = of_stage
            .iter()
            .map(|last| format!("{} {}", last.metric, number(last.value)));
        let words: Vec<String> = words.collect();
        Fact::text(of_stage[0].stage.clone(), words.join(", "))
    };
    of_stages.map(fact).collect()
}

fn samples(report: &Report) -> Vec<Section<'_>> {
    let last = report.samples_last();
    let mut sections = Vec::new();
    for stage in &report.stages {
        let of_stage = |sample: &&Sample| sample.stage == stage.row.name;
        let samples: Vec<&Sample> = last.iter().copied().filter(of_stage).collect();
        let Some(first) = samples.first() else {
            continue;
        };
        let remark = match first.step {
            Some(step) => format!("at step {}", thousands(step)),
            None => counted(samples.len(), "sample"),
        };
        let earlier = report.samples.iter().filter(of_stage);
        let earlier: Vec<&Sample> = earlier.filter(|sample| sample.step != first.step).collect();
        let mut blocks = vec![Block::Samples(sample_block(&samples))];
        if !earlier.is_empty() {
            blocks.push(earlier_samples(&earlier));
        }
        let title = format!("Samples of {}", stage.row.name);
        sections.push(Section::new(title, blocks).remark(remark).long(true));
    }
    // The last model's are what a reader came for.
    if let Some(last) = sections.last_mut() {
        last.is_long = false;
    }
    sections
}

fn sample_block(samples: &[&Sample]) -> Samples {
    let prompt = |sample: &&Sample| Prompt {
        text: sample.prompt.clone(),
        answers: vec![Answer {
            runs: Vec::new(),
            text: sample.text.clone(),
        }],
    };
    Samples {
        n_runs: 1,
        prompts: samples.iter().map(prompt).collect(),
    }
}

/// Samples that a stage wrote while it was still learning.
fn earlier_samples<'a>(earlier: &[&Sample]) -> Block<'a> {
    let mut blocks = Vec::new();
    for of_step in earlier.chunk_by(|a, b| a.step == b.step) {
        let step = of_step[0].step.map(thousands);
        let title = format!("step {}", step.unwrap_or_default());
        blocks.push(Block::Title(title, String::new()));
        blocks.push(Block::Samples(sample_block(of_step)));
    }
    Block::Fold("earlier, while it was learning".to_owned(), blocks)
}

fn warnings(report: &Report) -> Option<Section<'_>> {
    let event = |event: &tinylm_registry::Event| Event {
        tone: match event.level {
            Level::Error => Tone::Bad,
            Level::Info | Level::Warning => Tone::Warn,
        },
        level: event.level.to_string(),
        stage: event.stage.clone().unwrap_or_default(),
        text: event.message.clone(),
    };
    let events: Vec<Event> = report.warnings().map(event).collect();
    (!events.is_empty()).then(|| Section::new("Warnings", vec![Block::Events(events)]))
}

fn stages(report: &Report) -> Option<Section<'_>> {
    if report.stages.is_empty() {
        return None;
    }
    let columns = vec![
        Column::new("stage", Holds::Names),
        Column::new("kind", Holds::Names),
        Column::new("outcome", Holds::Names),
        Column::new("time", Holds::Figures),
        Column::new("cpu", Holds::Figures),
        Column::new("memory", Holds::Figures),
        // The run that made a hit can be typed; a digest is only looked at.
        Column::new("artifact", Holds::Digests).spare(),
    ];
    let rows = report.stages.iter().map(|stage| stage_row(report, stage));
    let table = Table::new(columns, rows.collect());
    let mut blocks = vec![Block::Graph(graph(report)), Block::Table(table)];
    let reasons = report.stages.iter().filter_map(|stage| {
        let reason = stage.reason()?;
        Some(Fact::text(stage.row.name.clone(), reason))
    });
    let reasons: Vec<Fact> = reasons.collect();
    // The first run of an experiment says six times that nothing was there before.
    let is_news =
        |fact: &Fact| !matches!(&fact.value, Value::Text(reason) if reason == "never run");
    if reasons.iter().any(is_news) {
        blocks.push(Block::Fold(
            "reasons".to_owned(),
            vec![Block::Facts(reasons)],
        ));
    }
    // Of a run that came to no result, they are the story.
    let has_result = report.run.status == Status::Done && report.headline_value().is_some();
    Some(Section::new("Stages", blocks).long(has_result))
}

fn stage_row(report: &Report, stage: &Stage) -> Vec<Cell> {
    let execution = stage.execution.as_ref();
    let outcome = outcome_tone(stage.row.outcome);
    // A hit's figures are those of the run that made it, so they stand back.
    let tone = match stage.row.outcome {
        Outcome::Hit => Tone::Quiet,
        _ => Tone::Plain,
    };
    let figure = |cell: Option<Cell>| cell.map_or_else(Cell::default, |cell| cell.toned(tone));
    let seconds = |n: f64| Cell::figure(n, duration(n));
    let memory = execution.and_then(|execution| execution.peak_memory_bytes);
    let artifact = stage.row.artifact.as_deref().unwrap_or_default();
    vec![
        Cell::plain(stage.row.name.clone()).at(places::stage(report, stage)),
        Cell::quiet(stage.row.kind.clone()),
        Cell::new(outcome_text(report, stage), outcome),
        figure(execution.map(|_| seconds(stage.elapsed_seconds))),
        figure(
            execution
                .and_then(|execution| execution.cpu_seconds)
                .map(seconds),
        ),
        figure(memory.map(|n| Cell::figure(n as f64, bytes(n)))),
        Cell {
            whole: Some(artifact.to_owned()),
            ..Cell::quiet(short_digest(artifact))
        },
    ]
}

/// The outcome of a stage, and why it ran.
fn told(report: &Report, stage: &Stage) -> String {
    let outcome = outcome_text(report, stage);
    let reason = stage.reason();
    reason.map_or_else(|| outcome.clone(), |reason| format!("{outcome}, {reason}"))
}

fn outcome_tone(outcome: Outcome) -> Tone {
    match outcome {
        Outcome::Made => Tone::Good,
        Outcome::Failed => Tone::Bad,
        Outcome::Running | Outcome::Cancelled => Tone::Warn,
        Outcome::Hit | Outcome::Pending | Outcome::Skipped => Tone::Quiet,
    }
}

pub(crate) fn graph(report: &Report) -> Graph {
    let place = |name: &str| {
        report
            .stages
            .iter()
            .position(|stage| stage.row.name == name)
    };
    let node = |(idx, stage): (usize, &Stage)| {
        let reads = stage.row.reads().into_iter().filter_map(place);
        Node {
            name: stage.row.name.clone(),
            kind: stage.row.kind.clone(),
            outcome: stage.row.outcome,
            told: told(report, stage),
            at: places::stage(report, stage),
            reads: reads.filter(|from| *from != idx).collect(),
        }
    };
    Graph {
        nodes: report.stages.iter().enumerate().map(node).collect(),
    }
}

fn settings(report: &Report) -> Option<Section<'_>> {
    let (defaults, changed): (Vec<&Param>, Vec<&Param>) = report
        .settings
        .iter()
        .partition(|setting| setting.is_default);
    let mut blocks = Vec::new();
    if !changed.is_empty() {
        blocks.push(Block::Table(setting_table(&changed)));
    }
    if !defaults.is_empty() {
        let title = format!(
            "{} left at their defaults",
            counted(defaults.len(), "setting")
        );
        blocks.push(Block::Fold(
            title,
            vec![Block::Table(setting_table(&defaults))],
        ));
    }
    let section = |blocks| Section::new("Settings", blocks).long(true);
    (!blocks.is_empty()).then(|| section(blocks).remark("that differ from the defaults"))
}

fn setting_table(settings: &[&Param]) -> Table {
    let columns = vec![
        Column::new("setting", Holds::Codes),
        Column::new("value", Holds::Codes),
    ];
    let row = |setting: &&Param| {
        vec![
            Cell::plain(setting.name.clone()),
            Cell::plain(setting.value.clone()),
        ]
    };
    Table::new(columns, settings.iter().map(row).collect())
}

fn made_from(report: &Report) -> Option<Section<'_>> {
    let mut blocks = Vec::new();
    for stage in &report.stages {
        let execution = stage.execution.as_ref();
        let Some(origin) = execution.and_then(|execution| execution.origin.as_ref()) else {
            continue;
        };
        let artifact = stage.row.artifact.iter();
        let artifact = artifact.map(|digest| ("artifact".to_owned(), digest.clone()));
        let facts = sources::facts(origin).into_iter().chain(artifact);
        let facts = facts.map(|(label, value)| Fact::code(label, value));
        blocks.push(Block::Title(stage.row.name.clone(), stage.row.kind.clone()));
        blocks.push(Block::Facts(facts.collect()));
    }
    (!blocks.is_empty()).then(|| Section::new("Made from", blocks).detail())
}
