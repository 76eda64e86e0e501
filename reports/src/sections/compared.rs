//! The one list of what is told of several runs.

use tinylm_registry::load::is_load;

use crate::{
    block::{
        Answer, Block, ByRun, Cell, Chart, Column, Document, Fact, Group, Head, Holds, Line,
        Prompt, Samples, Section, Series, Table, Tone,
    },
    comparison::{Comparison, CurveRow, Effect, MetricRow, PartLosses, SampleRow, SettingRow},
    curve::is_loss,
    metric::Better,
    number::{bytes, counted, duration, letter, moment, number, percent},
    places,
};

use super::{graph, is_drawn, noise, parallel, status_cell, value_cell};

/// Tells of several runs.
pub fn of_comparison(comparison: &Comparison) -> Document<'_> {
    let mut sections = vec![Section::new("Runs", vec![Block::ByRun(by_run(comparison))])];
    sections.extend(noise::sections(comparison));
    sections.extend(parallel::section(comparison));
    sections.extend(effects(comparison));
    sections.extend(curves(comparison));
    sections.extend(samples(comparison));
    sections.extend(shared(comparison));
    sections.extend(graphs(comparison));
    let version = comparison
        .runs
        .first()
        .map(|report| report.run.version.clone());
    Document {
        head: Head {
            title: format!("{} side by side", counted(comparison.runs.len(), "run")),
            verdict: verdict(comparison).unwrap_or_default(),
            version: version.unwrap_or_default(),
            ..Head::default()
        },
        sections,
    }
}

/// Says in a sentence which run is best, and by how much.
fn verdict(comparison: &Comparison) -> Option<Vec<Cell>> {
    let row = comparison.main_row()?;
    let best = row.is_best.iter().position(|is_best| *is_best)?;
    let name = |idx: usize| comparison.runs[idx].run.name.clone();
    let value = |idx: usize| row.values[idx].map(number).unwrap_or_default();
    let mut words = vec![
        Cell::new(name(best), Tone::Strong),
        Cell::plain(format!(
            " has the best {}: {}",
            row.full_name(),
            value(best)
        )),
    ];
    let other = if best == 0 {
        second_best(row, best)
    } else {
        Some(0)
    };
    let against = other.and_then(|other| Some((other, row.values[other]?, row.values[best]?)));
    if let Some((other, from, to)) = against
        && from.is_finite()
        && from != 0.0
    {
        let change = percent((to - from) / from.abs() * 100.0);
        let text = format!(" against {} of {} ", value(other), name(other));
        words.push(Cell::plain(text));
        words.push(Cell::new(format!("({change})"), Tone::Good));
    }
    Some(words)
}

fn second_best(row: &MetricRow, best: usize) -> Option<usize> {
    let better = row.better.unwrap_or(Better::Lower);
    let others = (0..row.values.len()).filter(|&idx| idx != best && row.values[idx].is_some());
    let value = |idx: usize| row.values[idx].unwrap_or(f64::NAN);
    others.min_by(|&a, &b| better.compare(value(a), value(b)))
}

fn by_run(comparison: &Comparison) -> ByRun {
    let names = comparison.runs.iter().map(|report| report.run.name.clone());
    let mut groups = vec![setting_group(comparison), metric_group(comparison)];
    groups.extend(part_groups(comparison));
    groups.push(cost_group(comparison));
    groups.retain(|group| !group.lines.is_empty());
    ByRun {
        heads: heads(comparison),
        names: names.collect(),
        groups,
        remark: judged_by(comparison),
        is_asked: comparison.is_asked,
    }
}

fn heads(comparison: &Comparison) -> Table {
    let has_tags = comparison
        .runs
        .iter()
        .any(|report| !report.run.tags.is_empty());
    let columns = vec![
        Column::new("", Holds::Names),
        Column::new("run", Holds::Names),
        Column::new("experiment", Holds::Texts),
        Column::new("status", Holds::Names),
        Column::new("started, UTC", Holds::Names),
        Column::new(if has_tags { "tags" } else { "" }, Holds::Texts),
    ];
    let rows = comparison.runs.iter().enumerate().map(|(idx, report)| {
        let run = &report.run;
        let started = moment(run.started_at);
        vec![
            letter_cell(idx),
            Cell::new(run.name.clone(), Tone::Strong).at(places::run(&run.name)),
            Cell::plain(run.experiment.clone()),
            status_cell(run.status),
            Cell {
                exact: Some(run.started_at as f64),
                ..Cell::quiet(started.trim_end_matches(" UTC"))
            },
            Cell::quiet(run.tags.join(", ")),
        ]
    });
    Table::new(columns, rows.collect())
}

fn letter_cell(run_idx: usize) -> Cell {
    Cell {
        exact: Some(run_idx as f64),
        ..Cell::new(letter(run_idx), Tone::Series(run_idx))
    }
}

fn judged_by(comparison: &Comparison) -> String {
    let Some(row) = comparison.main_row() else {
        return String::new();
    };
    let way = match row.better {
        Some(Better::Higher) => "higher",
        _ => "lower",
    };
    format!("the best {} ({way} is better)", row.full_name())
}

fn setting_group(comparison: &Comparison) -> Group {
    let effects = &comparison.effects;
    let rank = |row: &SettingRow| {
        let place = effects.iter().position(|effect| effect.setting == row.name);
        SETTINGS + place.unwrap_or(effects.len())
    };
    let line = |row: &SettingRow| Line {
        of: String::new(),
        name: row.name.clone(),
        cells: row.values.iter().map(setting_cell).collect(),
        rank: Some(rank(row)),
    };
    Group {
        title: "Settings that differ".to_owned(),
        remark: String::new(),
        holds: Holds::Codes,
        lines: comparison.settings.iter().map(line).collect(),
    }
}

fn setting_cell(value: &Option<String>) -> Cell {
    let Some(text) = value else {
        return Cell::missing();
    };
    Cell {
        exact: text.parse().ok(),
        ..Cell::plain(text.clone())
    }
}

/// Ranks of columns where runs are rows: the number they are judged by, their time, settings by
/// their effect, then further metrics.
const MAIN: usize = 0;
const TIME: usize = 1;
const SETTINGS: usize = 2;
const METRICS: usize = 10_000;

fn metric_group(comparison: &Comparison) -> Group {
    let rows = comparison.telling();
    let ranks = metric_ranks(comparison, &rows);
    let lines = rows.iter().zip(ranks);
    Group {
        title: "Metrics".to_owned(),
        remark: String::new(),
        holds: Holds::Figures,
        lines: lines
            .map(|(row, rank)| Line {
                rank,
                ..metric_line(row, &row.stage, &row.metric)
            })
            .collect(),
    }
}

fn metric_line(row: &MetricRow, of: &str, name: &str) -> Line {
    Line {
        of: of.to_owned(),
        name: name.to_owned(),
        cells: (0..row.values.len())
            .map(|idx| metric_cell(row, idx))
            .collect(),
        rank: None,
    }
}

fn metric_cell(row: &MetricRow, run_idx: usize) -> Cell {
    let Some(value) = row.values[run_idx] else {
        return Cell::missing();
    };
    let tone = match row.is_better(run_idx) {
        Some(true) => Tone::Good,
        Some(false) => Tone::Bad,
        None => Tone::Quiet,
    };
    let change = row.changes[run_idx].map(|change| (percent(change), tone));
    let cell = value_cell(value, row.errors[run_idx]);
    let tone = if row.is_best[run_idx] {
        Tone::Best
    } else {
        cell.tone
    };
    Cell {
        change,
        tone,
        ..cell
    }
}

/// Ranks the metrics that differ: the one that judges, then what can be better, its stage first.
fn metric_ranks(comparison: &Comparison, rows: &[&MetricRow]) -> Vec<Option<usize>> {
    let main = comparison.main_row();
    let is_main = |row: &MetricRow| main.is_some_and(|main| main.full_name() == row.full_name());
    let is_beside = |row: &MetricRow| main.is_some_and(|main| main.stage == row.stage);
    let differs = |row: &MetricRow| row.values.iter().any(|value| *value != row.values[0]);
    let mut order: Vec<usize> = (0..rows.len())
        .filter(|&idx| !is_main(rows[idx]) && differs(rows[idx]))
        .collect();
    order.sort_by_key(|&idx| {
        let row = rows[idx];
        let is_last = row.is_last.contains(&true);
        (row.better.is_none(), !is_beside(row), is_last)
    });
    let rank = |idx: usize| {
        let place = order.iter().position(|&other| other == idx);
        place.map(|place| METRICS + place)
    };
    (0..rows.len())
        .map(|idx| is_main(rows[idx]).then_some(MAIN).or_else(|| rank(idx)))
        .collect()
}

fn part_groups(comparison: &Comparison) -> Vec<Group> {
    let wholes = comparison.part_losses().into_iter();
    let group = |whole: PartLosses<'_>| Group {
        title: format!("{} by {}", whole.stage, whole.by),
        remark: if whole.by == "task" { "acc" } else { "loss" }.to_owned(),
        holds: Holds::Figures,
        lines: whole
            .parts
            .iter()
            .map(|&(part, row)| metric_line(row, "", part))
            .collect(),
    };
    wholes.map(group).collect()
}

fn cost_group(comparison: &Comparison) -> Group {
    let costs = &comparison.costs;
    let line = |name: &str, rank: Option<usize>, cell: &dyn Fn(usize) -> Cell| Line {
        of: String::new(),
        name: name.to_owned(),
        cells: (0..costs.len()).map(cell).collect(),
        rank,
    };
    let seconds = |n: f64| Cell::figure(n, duration(n));
    let time = |idx: usize| match comparison.runs[idx].run.status {
        tinylm_registry::Status::Done => seconds(costs[idx].elapsed_seconds),
        status => status_cell(status),
    };
    let memory = |idx: usize| match costs[idx].peak_memory_bytes {
        0 => Cell::missing(),
        n => Cell::figure(n as f64, bytes(n)),
    };
    let stages = |idx: usize| Cell::plain(format!("{}, {}", costs[idx].n_made, costs[idx].n_hit));
    Group {
        title: "Cost".to_owned(),
        remark: String::new(),
        holds: Holds::Figures,
        lines: vec![
            line("time", Some(TIME), &time),
            line("cpu", None, &|idx| seconds(costs[idx].cpu_seconds)),
            line("peak memory", None, &memory),
            line("stages made, hit", None, &stages),
            line("from scratch", None, &|idx| {
                seconds(costs[idx].stages_seconds)
            }),
        ],
    }
}

fn effects(comparison: &Comparison) -> Option<Section<'_>> {
    if comparison.effects.is_empty() {
        return None;
    }
    let columns = vec![
        Column::new("setting", Holds::Codes),
        Column::new("value", Holds::Codes),
        Column::new("runs", Holds::Figures),
        Column::new("mean", Holds::Figures),
        Column::new("best", Holds::Figures),
        Column::new("behind", Holds::Figures),
    ];
    let of_setting = comparison.effects.chunk_by(|a, b| a.setting == b.setting);
    let rows = of_setting.flat_map(|effects| {
        let rows = effects.iter().map(|effect| effect_row(effect, &effects[0]));
        rows.collect::<Vec<_>>()
    });
    let table = Table {
        is_grouped: true,
        ..Table::new(columns, rows.collect())
    };
    let main = comparison.main.as_deref().unwrap_or_default();
    let section = Section::new("Effect of each setting", vec![Block::Table(table)]);
    Some(section.remark(format!("on {main}, the largest first")))
}

fn effect_row(effect: &Effect, leader: &Effect) -> Vec<Cell> {
    let behind = (effect.mean - leader.mean) / leader.mean.abs() * 100.0;
    let is_leader = effect.value == leader.value;
    vec![
        Cell::plain(effect.setting.clone()),
        setting_cell(&Some(effect.value.clone())),
        Cell::figure(effect.n_runs as f64, effect.n_runs.to_string()),
        value_cell(effect.mean, None),
        value_cell(effect.best, None),
        if is_leader {
            Cell::default()
        } else {
            Cell::figure(behind, percent(behind)).toned(Tone::Quiet)
        },
    ]
}

fn curves(comparison: &Comparison) -> Option<Section<'_>> {
    let mut rows: Vec<&CurveRow> = comparison.curves.iter().collect();
    rows.sort_by_key(|row| match row.metric.as_str() {
        "validation_loss" => 0,
        "loss" => 1,
        metric if is_load(metric) => 3,
        _ => 2,
    });
    let ranks = ranks(comparison);
    let charts = rows.iter().filter_map(|row| chart(comparison, row, &ranks));
    let blocks: Vec<Block<'_>> = charts.map(Block::Chart).collect();
    (!blocks.is_empty()).then(|| Section::new("Curves", blocks))
}

/// Returns the place of each run by the number that judges.
fn ranks(comparison: &Comparison) -> Vec<usize> {
    let mut order: Vec<usize> = (0..comparison.runs.len()).collect();
    if let Some(main) = comparison.main_row() {
        let better = main.better.unwrap_or(Better::Lower);
        let value = |idx: usize| main.values[idx].unwrap_or(f64::NAN);
        order.sort_by(|&a, &b| better.compare(value(a), value(b)));
    }
    let mut ranks = vec![0; order.len()];
    for (rank, idx) in order.into_iter().enumerate() {
        ranks[idx] = rank;
    }
    ranks
}

fn chart<'a>(comparison: &'a Comparison, row: &CurveRow, ranks: &[usize]) -> Option<Chart<'a>> {
    let series = |run_idx: usize| {
        let curve = comparison.curve(row, run_idx)?;
        let letter = letter(run_idx);
        Some(Series {
            key: run_idx.to_string(),
            name: format!("{letter} {}", comparison.runs[run_idx].run.name),
            at: places::curve(&comparison.runs[run_idx], curve),
            letter: Some(letter),
            colour: run_idx,
            curve,
            has_marks: curve.points.len() < 2,
            rank: ranks[run_idx],
        })
    };
    let series = (0..comparison.runs.len()).filter_map(series);
    let series: Vec<Series<'_>> = series.filter(|one| is_drawn(one.curve)).collect();
    (!series.is_empty()).then(|| Chart {
        title: row.stage.clone(),
        metric: row.metric.clone(),
        is_main: is_loss(&row.metric) || comparison.is_asked,
        series,
    })
}

fn samples(comparison: &Comparison) -> Vec<Section<'_>> {
    let is_shared = |row: &&SampleRow| row.texts.iter().flatten().count() > 1;
    let rows: Vec<&SampleRow> = comparison.samples.iter().filter(is_shared).collect();
    let of_stages = rows.chunk_by(|a, b| a.stage == b.stage);
    let section = |rows: &[&SampleRow]| {
        let samples = Samples {
            n_runs: comparison.runs.len(),
            prompts: rows.iter().map(|row| prompt(row)).collect(),
        };
        let title = format!("Samples of {}", rows[0].stage);
        Section::new(title, vec![Block::Samples(samples)])
    };
    of_stages.map(section).collect()
}

fn prompt(row: &SampleRow) -> Prompt {
    let answers = row.groups().into_iter().map(|(text, runs)| Answer {
        runs,
        text: text.to_owned(),
    });
    Prompt {
        text: row.prompt.clone(),
        answers: answers.collect(),
    }
}

fn shared(comparison: &Comparison) -> Option<Section<'_>> {
    let shared = comparison.shared_by_runs().into_iter();
    let facts = shared.map(|(runs, stages)| Fact::text(runs, stages.join(", ")));
    let facts: Vec<Fact> = facts.collect();
    let section = |facts| Section::new("Stages shared", vec![Block::Facts(facts)]);
    (!facts.is_empty()).then(|| section(facts).remark("the same artifacts, made once"))
}

fn graphs(comparison: &Comparison) -> Option<Section<'_>> {
    /// Graphs of many runs are the same graph many times.
    const GRAPHS_MAX: usize = 4;
    let mut blocks = Vec::new();
    let runs = comparison.runs.iter().take(GRAPHS_MAX);
    for report in runs.filter(|report| !report.stages.is_empty()) {
        blocks.push(Block::Title(report.run.name.clone(), String::new()));
        blocks.push(Block::Graph(graph(report)));
    }
    (!blocks.is_empty()).then(|| Section::new("Graphs", blocks).detail())
}
