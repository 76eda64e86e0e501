//! A report for a terminal.
//!
//! Plain lines of text that fit the width they are given, with colour only where it was asked for:
//! this module never looks at the terminal itself, so that a test sees what a person sees.
//! Nothing here reads the registry; everything is in the `Report` or the `Comparison`.

mod chart;
mod compared;
mod screen;
mod table;
#[cfg(test)]
mod tests;

pub use compared::comparison;

use crate::{
    curve::{Axis, Curve},
    metric::{Part, is_result},
    number::{bytes, counted, duration, moment, number, percent, short_digest, thousands, tick},
    phrases::{code_line, cost_line, machine_line, outcome_text, time_line},
    report::{Final, PartTable, Report, Run, Sample, Stage},
    text::{clean, fitted, width, wrapped},
};
use chart::{Chart, Line, Look, sparkline};
use screen::{Paint, Screen, Span, plain, span};
use table::{Column, Table};

/// How a report is to be drawn.
#[derive(Clone, Debug)]
pub struct TerminalOptions {
    /// Columns of the terminal; no line is longer.
    pub width: usize,
    pub colour: bool,
    /// What curves are drawn against.
    pub axis: Axis,
    /// Whether the values of curves are drawn on a logarithmic scale.
    pub log: bool,
    /// Metrics to show, as `loss` or `base.loss`; all when empty.
    pub metrics: Vec<String>,
}

impl Default for TerminalOptions {
    fn default() -> Self {
        Self {
            width: 80,
            colour: false,
            axis: Axis::Step,
            log: false,
            metrics: Vec::new(),
        }
    }
}

impl TerminalOptions {
    fn screen(&self) -> Screen {
        // Below this a table is no table any more, whatever the terminal says.
        Screen::new(self.width.max(20), self.colour)
    }

    fn shows(&self, stage: &str, metric: &str) -> bool {
        crate::comparison::selects(&self.metrics, stage, metric)
    }
}

/// Renders one run.
pub fn report(report: &Report, options: &TerminalOptions) -> String {
    let mut screen = options.screen();
    print_head(&mut screen, &report.run);
    print_facts(&mut screen, report);
    print_settings(&mut screen, report);
    print_stages(&mut screen, report);
    print_failures(&mut screen, report);
    print_finals(&mut screen, report, options);
    print_curves(&mut screen, report, options);
    print_samples(&mut screen, report);
    print_sources(&mut screen, report);
    print_events(&mut screen, report);
    print_notes(&mut screen, report);
    screen.finish()
}

pub(crate) fn status_paint(status: &str) -> Paint {
    match status {
        "done" => Paint::Good,
        "running" | "interrupted" | "cancelled" => Paint::Warn,
        "failed" => Paint::Bad,
        _ => Paint::Plain,
    }
}

fn print_head(screen: &mut Screen, run: &Run) {
    let name = span(run.name.clone(), Paint::Strong);
    let experiment = plain(format!("  {}", run.experiment));
    screen.line_between(
        vec![name, experiment],
        span(run.status.clone(), status_paint(&run.status)),
    );
    if !run.question.is_empty() {
        for line in wrapped(&run.question, screen.width) {
            screen.line(&[span(line, Paint::Quiet)]);
        }
    }
    screen.gap();
}

/// Prints `label  value`, the value wrapped below itself.
fn print_fact(screen: &mut Screen, label: &str, value: &str) {
    print_labelled(screen, &[(label, value.to_owned())]);
}

/// Prints facts below each other, their values in one column.
fn print_labelled(screen: &mut Screen, facts: &[(&str, String)]) {
    let widest = facts.iter().map(|(label, _)| width(&clean(label))).max();
    let columns = (widest.unwrap_or(0) + 2).clamp(10, 24);
    for (label, value) in facts {
        let label = clean(label);
        let label = fitted(&label, columns - 2);
        let mut lead = format!("  {label}{}", " ".repeat(columns - width(&label)));
        for line in wrapped(value, screen.width.saturating_sub(columns + 2)) {
            screen.line(&[span(lead.as_str(), Paint::Quiet), plain(line)]);
            lead = " ".repeat(columns + 2);
        }
    }
}

fn print_facts(screen: &mut Screen, report: &Report) {
    let run = &report.run;
    print_fact(screen, "started", &time_line(report));
    print_fact(screen, "cost", &cost_line(report));
    if let Some(seed) = run.seed {
        print_fact(screen, "seed", &seed.to_string());
    }
    print_fact(screen, "code", &code_line(run));
    print_fact(screen, "machine", &machine_line(run));
    print_fact(screen, "command", &run.command);
    print_fact(screen, "file", &run.file);
    if let Some(sweep) = &run.sweep {
        print_fact(screen, "sweep", sweep);
    }
    if !run.tags.is_empty() {
        print_fact(screen, "tags", &run.tags.join(", "));
    }
}

fn print_settings(screen: &mut Screen, report: &Report) {
    let changed: Vec<_> = report
        .settings
        .iter()
        .filter(|setting| !setting.is_default && setting.name != "seed")
        .collect();
    if changed.is_empty() {
        return;
    }
    screen.heading("Settings that differ from the defaults");
    let mut table = Table::new(&[("", Column::Path), ("", Column::Text)]);
    for setting in changed {
        table.row(vec![
            plain(setting.name.clone()),
            plain(setting.value.clone()),
        ]);
    }
    table.print(screen);
}

fn print_stages(screen: &mut Screen, report: &Report) {
    if report.stages.is_empty() {
        return;
    }
    screen.heading("Stages");
    let mut table = stage_table(report, true);
    // Which run made what it hit can be typed, a digest is only looked at.
    if table.width_natural() > screen.width {
        table = stage_table(report, false);
    }
    table.print(screen);
}

fn stage_table(report: &Report, has_artifact: bool) -> Table {
    let columns = [
        ("", Column::Text),
        ("stage", Column::Text),
        ("kind", Column::Text),
        ("outcome", Column::Text),
        ("time", Column::Figure),
        ("cpu", Column::Figure),
        ("memory", Column::Figure),
        ("artifact", Column::Figure),
    ];
    let n_columns = columns.len() - usize::from(!has_artifact);
    let mut table = Table::new(&columns[..n_columns]);
    for stage in &report.stages {
        let mut row = stage_row(report, stage);
        row.truncate(n_columns);
        table.row(row);
    }
    table
}

fn stage_row(report: &Report, stage: &Stage) -> Vec<Span> {
    let (sign, paint) = outcome_sign(&stage.outcome);
    // A hit's figures are those of the run that made it, so they stand back.
    let figures_paint = if stage.outcome == "hit" {
        Paint::Quiet
    } else {
        Paint::Plain
    };
    let figure = |text: Option<String>| span(text.unwrap_or_default(), figures_paint);
    let execution = stage.execution.as_ref();
    vec![
        span(sign, paint),
        plain(stage.name.clone()),
        span(stage.kind.clone(), Paint::Quiet),
        span(outcome_text(report, stage), paint),
        figure(execution.map(|execution| duration(execution.elapsed_seconds))),
        figure(
            execution
                .and_then(|execution| execution.cpu_seconds)
                .map(duration),
        ),
        figure(
            execution
                .and_then(|execution| execution.peak_memory_bytes)
                .map(bytes),
        ),
        span(
            stage
                .artifact
                .as_deref()
                .map(short_digest)
                .unwrap_or_default(),
            Paint::Quiet,
        ),
    ]
}

pub(crate) fn outcome_sign(outcome: &str) -> (&'static str, Paint) {
    match outcome {
        "made" => ("✓", Paint::Good),
        "hit" => ("=", Paint::Quiet),
        "failed" => ("✗", Paint::Bad),
        "running" => ("›", Paint::Warn),
        "cancelled" | "interrupted" => ("!", Paint::Warn),
        _ => ("·", Paint::Quiet),
    }
}

fn print_failures(screen: &mut Screen, report: &Report) {
    for stage in &report.stages {
        let Some(error) = stage
            .execution
            .as_ref()
            .and_then(|execution| execution.error.as_ref())
        else {
            continue;
        };
        if stage.outcome == "hit" {
            continue;
        }
        screen.gap();
        screen.line(&[
            span("  ✗ ", Paint::Bad),
            plain(format!("stage `{}` {}", stage.name, stage.outcome)),
        ]);
        for line in wrapped(error, screen.width.saturating_sub(4)) {
            screen.line(&[plain(format!("    {line}"))]);
        }
    }
}

/// Prints what was measured as tables, and what was only counted in a few lines.
fn print_finals(screen: &mut Screen, report: &Report, options: &TerminalOptions) {
    let is_asked = !options.metrics.is_empty();
    let is_part = |last: &Final| Part::of(&last.metric).is_some();
    let finals = report.finals.iter();
    let shown = finals.filter(|last| options.shows(&last.stage, &last.metric));
    let shown = shown.filter(|last| is_asked || !is_part(last));
    let (results, counts): (Vec<&Final>, Vec<&Final>) =
        shown.partition(|last| is_asked || is_result(&last.metric));
    if !results.is_empty() {
        screen.heading("Results");
        print_results(screen, &results);
    }
    if !is_asked {
        for table in report.part_tables() {
            print_parts(screen, &table);
        }
    }
    if !counts.is_empty() {
        screen.heading("Counts");
    }
    let of_stages = counts.chunk_by(|a, b| a.stage == b.stage);
    let facts: Vec<(&str, String)> = of_stages
        .map(|of_stage| {
            let words = of_stage
                .iter()
                .map(|last| format!("{} {}", last.metric, number(last.value)));
            let words = words.collect::<Vec<_>>().join(", ");
            (of_stage[0].stage.as_str(), words)
        })
        .collect();
    print_labelled(screen, &facts);
}

fn print_results(screen: &mut Screen, results: &[&Final]) {
    let columns = [("", Column::Text), ("", Column::Text), ("", Column::Figure)];
    let mut table = Table::new(&columns);
    for of_stage in results.chunk_by(|a, b| a.stage == b.stage) {
        for (idx, last) in of_stage.iter().enumerate() {
            let stage: &str = if idx == 0 { &last.stage } else { "" };
            table.row(vec![
                span(stage, Paint::Quiet),
                plain(last.metric.clone()),
                value_span(last.value),
            ]);
        }
    }
    table.print(screen);
}

fn print_parts(screen: &mut Screen, parts: &PartTable<'_>) {
    screen.heading(&format!("{} by {}", parts.stage, parts.by));
    let mut columns = vec![("", Column::Path)];
    columns.extend(parts.metrics.iter().map(|metric| (*metric, Column::Figure)));
    let mut table = Table::new(&columns);
    for (part_idx, (name, _)) in parts.parts.iter().enumerate() {
        let mut cells = vec![plain(*name)];
        let values = (0..parts.metrics.len()).map(|idx| parts.value(part_idx, idx));
        cells.extend(values.map(|value| value.map_or(span("–", Paint::Quiet), value_span)));
        table.row(cells);
    }
    table.print(screen);
}

pub(crate) fn value_span(value: f64) -> Span {
    span(
        number(value),
        if value.is_finite() {
            Paint::Plain
        } else {
            Paint::Bad
        },
    )
}

fn print_curves(screen: &mut Screen, report: &Report, options: &TerminalOptions) {
    let mut headed = false;
    for stage in &report.stages {
        let curves: Vec<&Curve> = report
            .curves
            .iter()
            .filter(|curve| curve.stage == stage.name && !curve.points.is_empty())
            .filter(|curve| options.shows(&curve.stage, &curve.metric))
            .collect();
        if curves.is_empty() {
            continue;
        }
        if !headed {
            screen.gap();
            headed = true;
        }
        print_stage_curves(screen, stage, &curves, options);
    }
}

fn print_stage_curves(
    screen: &mut Screen,
    stage: &Stage,
    curves: &[&Curve],
    options: &TerminalOptions,
) {
    let is_main = |curve: &&Curve| {
        if options.metrics.is_empty() {
            curve.is_loss()
        } else {
            true
        }
    };
    let (drawn, others): (Vec<&Curve>, Vec<&Curve>) =
        curves.iter().partition(|curve| is_main(curve));
    if options.metrics.is_empty() {
        print_chart(screen, &stage.name, &drawn, options);
    } else {
        // Metrics chosen by hand may have scales that do not fit into one picture.
        for group in by_scale(&drawn) {
            print_chart(screen, &stage.name, &group, options);
        }
    }
    if others.is_empty() {
        return;
    }
    screen.gap();
    let mut table = Table::new(&[
        ("", Column::Text),
        ("", Column::Text),
        ("last", Column::Figure),
        ("lowest", Column::Figure),
        ("highest", Column::Figure),
    ]);
    for curve in others {
        table.row(sparkline_row(curve, screen.width));
    }
    table.print(screen);
}

/// Puts losses with losses and everything else by itself.
fn by_scale<'a>(curves: &[&'a Curve]) -> Vec<Vec<&'a Curve>> {
    let (losses, others): (Vec<&Curve>, Vec<&Curve>) = curves
        .iter()
        .partition(|curve| curve.metric.contains("loss"));
    let mut groups = vec![losses];
    groups.extend(others.into_iter().map(|curve| vec![curve]));
    groups.retain(|group| !group.is_empty());
    groups
}

fn sparkline_row(curve: &Curve, width: usize) -> Vec<Span> {
    let values: Vec<f64> = curve.points.iter().map(|point| point.value).collect();
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    vec![
        plain(curve.metric.clone()),
        span(sparkline(&values, (width / 3).min(40)), Paint::Series(0)),
        value_span(values.last().copied().unwrap_or(f64::NAN)),
        span(number(finite().fold(f64::NAN, f64::min)), Paint::Quiet),
        span(number(finite().fold(f64::NAN, f64::max)), Paint::Quiet),
    ]
}

fn print_chart(screen: &mut Screen, title: &str, curves: &[&Curve], options: &TerminalOptions) {
    const MARKS: [char; 4] = ['●', '◆', '▲', '■'];
    let Some(densest) = curves.iter().max_by_key(|curve| curve.n_points) else {
        return;
    };
    let mut lines = Vec::new();
    let mut legend = vec![vec![span(title, Paint::Strong)]];
    for (idx, curve) in curves.iter().enumerate() {
        let paint = Paint::Series(idx);
        let is_marked = idx > 0 && (curve.is_sparse_beside(densest) || curve.n_points < 20)
            || curve.points.len() == 1;
        let look = match (is_marked, idx) {
            (true, _) => Look::Marks(MARKS[idx % MARKS.len()]),
            (false, 0) => Look::Braille,
            (false, _) => Look::Lettered(char::from_digit(idx as u32 + 10, 36).unwrap_or('?')),
        };
        lines.push(Line {
            points: curve.along(options.axis),
            paint,
            look,
        });
        legend.push(legend_spans(curve, look, paint));
    }
    let (x_title, x_tick) = axis_look(options.axis);
    screen.gap();
    screen.flow(&legend);
    if lines.iter().all(|line| line.points.is_empty()) {
        screen.line(&[span(
            format!("  no {x_title} were recorded for these curves"),
            Paint::Quiet,
        )]);
        return;
    }
    Chart {
        lines: &lines,
        height: 11,
        x_title,
        x_tick,
        log: options.log,
    }
    .print(screen);
}

fn legend_spans(curve: &Curve, look: Look, paint: Paint) -> Vec<Span> {
    let sign = match look {
        Look::Braille => "⠒⠒".to_owned(),
        Look::Lettered(letter) => format!("⠒{letter}⠒"),
        Look::Marks(mark) => mark.to_string(),
    };
    let mut spans = vec![span(sign, paint), plain(format!(" {}", curve.metric))];
    if let Some(last) = curve.last() {
        spans.push(span(format!(" {}", number(last)), Paint::Quiet));
    }
    if let Some(broken) = curve.points.iter().find(|point| !point.value.is_finite()) {
        spans.push(span(
            format!(
                " × {} at step {}",
                number(broken.value),
                thousands(broken.step as i64)
            ),
            Paint::Bad,
        ));
    }
    spans
}

pub(crate) fn axis_look(axis: Axis) -> (&'static str, fn(f64) -> String) {
    match axis {
        Axis::Step => ("steps", tick),
        Axis::Tokens => ("tokens", tick),
        Axis::Time => ("time", short_duration),
    }
}

/// Writes the tick of a time axis.
fn short_duration(seconds: f64) -> String {
    match seconds {
        _ if seconds < 120.0 => format!("{}s", tick(seconds)),
        _ if seconds < 7_200.0 => format!("{}m", tick((seconds / 6.0).round() / 10.0)),
        _ => format!("{}h", tick((seconds / 360.0).round() / 10.0)),
    }
}

fn print_samples(screen: &mut Screen, report: &Report) {
    /// Samples of one stage shown; the rest is counted.
    const SAMPLES_MAX: usize = 20;
    for stage in &report.stages {
        let samples: Vec<&Sample> = report
            .samples_last()
            .into_iter()
            .filter(|sample| sample.stage == stage.name)
            .collect();
        let Some(first) = samples.first() else {
            continue;
        };
        let remark = match first.step {
            Some(step) => format!("at step {}", thousands(step as i64)),
            None => counted(samples.len(), "sample"),
        };
        screen.heading_with(&format!("Samples of {}", stage.name), &remark);
        for sample in samples.iter().take(SAMPLES_MAX) {
            print_sample(screen, sample);
        }
        if samples.len() > SAMPLES_MAX {
            screen.line(&[span(
                format!("  and {} more", samples.len() - SAMPLES_MAX),
                Paint::Quiet,
            )]);
        }
    }
}

fn print_sample(screen: &mut Screen, sample: &Sample) {
    let columns = screen.width.saturating_sub(6);
    print_quoted(
        screen,
        "  › ",
        &wrapped(sample.prompt.trim(), columns),
        Paint::Quiet,
        3,
    );
    print_quoted(
        screen,
        "    ",
        &wrapped(sample.text.trim(), columns),
        Paint::Plain,
        8,
    );
}

/// Prints the first lines of a text and says how many it left out.
fn print_quoted(screen: &mut Screen, lead: &str, lines: &[String], paint: Paint, n_max: usize) {
    if lines.iter().all(|line| line.is_empty()) {
        screen.line(&[span(format!("{lead}(empty)"), Paint::Quiet)]);
        return;
    }
    for (idx, line) in lines.iter().take(n_max).enumerate() {
        screen.line(&[
            plain(if idx == 0 { lead } else { "    " }),
            span(line.clone(), paint),
        ]);
    }
    if lines.len() > n_max {
        screen.line(&[span(
            format!("    … {}", counted(lines.len() - n_max, "more line")),
            Paint::Quiet,
        )]);
    }
}

fn print_sources(screen: &mut Screen, report: &Report) {
    let mut headed = false;
    for stage in &report.stages {
        let Some(origin) = stage
            .execution
            .as_ref()
            .and_then(|execution| execution.origin.as_ref())
        else {
            continue;
        };
        if !headed {
            screen.heading("Made from");
            headed = true;
        }
        screen.line(&[
            plain(format!("  {}", stage.name)),
            span(format!("  {}", stage.kind), Paint::Quiet),
        ]);
        // Two columns only, so that a whole digest fits into eighty.
        let mut table = Table::new(&[("", Column::Text), ("", Column::Path)]).indented(4);
        let artifact = stage
            .artifact
            .iter()
            .map(|digest| ("artifact".to_owned(), digest.clone()));
        for (label, value) in crate::sources::facts(origin).into_iter().chain(artifact) {
            table.row(vec![span(label, Paint::Quiet), plain(value)]);
        }
        table.print(screen);
    }
}

fn print_events(screen: &mut Screen, report: &Report) {
    const EVENTS_MAX: usize = 20;
    let events: Vec<_> = report.warnings().collect();
    if events.is_empty() {
        return;
    }
    screen.heading("Warnings");
    for event in events.iter().take(EVENTS_MAX) {
        let paint = if event.level == "error" {
            Paint::Bad
        } else {
            Paint::Warn
        };
        let stage = event
            .stage
            .as_deref()
            .map(|stage| format!("{stage}: "))
            .unwrap_or_default();
        for (idx, line) in wrapped(
            &format!("{stage}{}", event.message),
            screen.width.saturating_sub(4),
        )
        .into_iter()
        .enumerate()
        {
            screen.line(&[
                span(if idx == 0 { "  ! " } else { "    " }, paint),
                plain(line),
            ]);
        }
    }
    if events.len() > EVENTS_MAX {
        screen.line(&[span(
            format!("    and {} more", events.len() - EVENTS_MAX),
            Paint::Quiet,
        )]);
    }
}

fn print_notes(screen: &mut Screen, report: &Report) {
    if report.notes.is_empty() {
        return;
    }
    screen.heading("Notes");
    for note in &report.notes {
        screen.line(&[span(format!("  {}", moment(note.at_ms)), Paint::Quiet)]);
        for line in wrapped(&note.text, screen.width.saturating_sub(2)) {
            screen.line(&[plain(format!("  {line}"))]);
        }
    }
}

/// Writes a relative difference with the sign of good or bad.
pub(crate) fn change_span(change: Option<f64>, is_better: Option<bool>) -> Span {
    let paint = match is_better {
        Some(true) => Paint::Good,
        Some(false) => Paint::Bad,
        None => Paint::Quiet,
    };
    span(change.map(percent).unwrap_or_default(), paint)
}
