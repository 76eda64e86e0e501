//! Several runs on a terminal.
//!
//! A few runs stand as columns, so that a figure is read against its neighbour. When they no longer
//! fit, each becomes a row and the columns are what varies: the settings that differ and the
//! metrics runs are judged by. Either way a run keeps its letter through all tables and charts.

use super::{
    TerminalOptions, axis_look, change_span,
    chart::{Chart, Line, Look},
    print_labelled,
    screen::{Paint, Screen, Span, plain, span},
    status_paint,
    table::{Column, Table},
    value_span,
};
use crate::{
    comparison::{Comparison, CurveRow, MetricRow, SampleRow, SettingRow},
    metric::Better,
    number::{bytes, counted, duration, moment, number, percent},
    phrases::letter,
    text::{clean, fitted, width, wrapped},
};

/// Curves in one chart; more cannot be told apart.
const LINES_MAX: usize = 6;

/// Letters of runs in front of a text they share.
const LETTERS_MAX: usize = 9;

/// Renders several runs side by side.
pub fn comparison(comparison: &Comparison, options: &TerminalOptions) -> String {
    let mut screen = options.screen();
    let as_columns = fits_as_columns(comparison, screen.width);
    if as_columns {
        print_runs(&mut screen, comparison);
        print_settings(&mut screen, comparison);
        print_metrics(&mut screen, comparison);
    } else {
        print_runs_as_rows(&mut screen, comparison, !options.metrics.is_empty());
    }
    print_effects(&mut screen, comparison);
    print_curves(&mut screen, comparison, options);
    print_samples(&mut screen, comparison);
    print_shared(&mut screen, comparison);
    if as_columns {
        print_costs(&mut screen, comparison);
    }
    screen.finish()
}

fn series(run_idx: usize) -> Paint {
    if run_idx < LINES_MAX {
        Paint::Series(run_idx)
    } else {
        Paint::Plain
    }
}

fn letter_span(run_idx: usize) -> Span {
    span(letter(run_idx), series(run_idx))
}

fn fits_as_columns(comparison: &Comparison, columns: usize) -> bool {
    const NAMES: usize = 30;
    const FIGURE: usize = 12;
    let n_runs = comparison.runs.len();
    n_runs <= 2 || NAMES + n_runs * FIGURE <= columns
}

fn print_runs(screen: &mut Screen, comparison: &Comparison) {
    screen.heading(&format!(
        "{} side by side",
        counted(comparison.runs.len(), "run")
    ));
    let has_tags = comparison
        .runs
        .iter()
        .any(|report| !report.run.tags.is_empty());
    let tags_title = if has_tags { "tags" } else { "" };
    let mut table = Table::new(&[
        ("", Column::Text),
        ("run", Column::Text),
        ("experiment", Column::Text),
        ("status", Column::Text),
        ("started", Column::Text),
        (tags_title, Column::Text),
    ]);
    for (idx, report) in comparison.runs.iter().enumerate() {
        let run = &report.run;
        table.row(vec![
            letter_span(idx),
            span(run.name.clone(), Paint::Strong),
            plain(run.experiment.clone()),
            span(run.status.clone(), status_paint(&run.status)),
            span(
                moment(run.started_ms).trim_end_matches(" UTC"),
                Paint::Quiet,
            ),
            span(run.tags.join(", "), Paint::Quiet),
        ]);
    }
    table.print(screen);
}

/// A table of one column a run, headed by the runs' letters.
fn table_by_run(
    comparison: &Comparison,
    names: &[(&'static str, Column)],
    column: Column,
    last: Option<(&'static str, Column)>,
) -> Table {
    let letters: Vec<String> = (0..comparison.runs.len()).map(letter).collect();
    let mut columns = names.to_vec();
    columns.extend(letters.iter().map(|letter| (letter.as_str(), column)));
    columns.extend(last);
    let mut table = Table::new(&columns);
    for idx in 0..letters.len() {
        table.paint_heading(names.len() + idx, series(idx));
    }
    table
}

fn print_settings(screen: &mut Screen, comparison: &Comparison) {
    if comparison.settings.is_empty() {
        screen.heading("No setting differs");
        return;
    }
    screen.heading("Settings that differ");
    let mut table = table_by_run(comparison, &[("", Column::Path)], Column::Text, None);
    for row in &comparison.settings {
        let mut cells = vec![plain(row.name.clone())];
        cells.extend(row.values.iter().map(setting_span));
        table.row(cells);
    }
    table.print(screen);
}

fn setting_span(value: &Option<String>) -> Span {
    match value {
        Some(value) => plain(value.clone()),
        None => span("–", Paint::Quiet),
    }
}

fn print_metrics(screen: &mut Screen, comparison: &Comparison) {
    if comparison.metrics.is_empty() {
        screen.heading("No metrics were recorded");
        return;
    }
    let remark = if comparison
        .metrics
        .iter()
        .any(|row| row.is_best.contains(&true))
    {
        "* the better"
    } else {
        ""
    };
    screen.heading_with("Metrics", remark);
    let rows = comparison.telling().into_iter();
    let rows: Vec<_> = rows
        .map(|row| (row.stage.as_str(), row.metric.as_str(), row))
        .collect();
    print_metric_table(screen, comparison, &rows);
    for whole in comparison.part_losses() {
        screen.heading_with(&format!("{} by {}", whole.stage, whole.by), "loss");
        let rows: Vec<_> = whole
            .parts
            .iter()
            .map(|&(part, row)| ("", part, row))
            .collect();
        print_metric_table(screen, comparison, &rows);
    }
}

/// Prints metrics under the names of their stages.
fn print_metric_table(
    screen: &mut Screen,
    comparison: &Comparison,
    rows: &[(&str, &str, &MetricRow)],
) {
    let is_pair = comparison.runs.len() == 2;
    let last = is_pair.then_some(("B against A", Column::Figure));
    let names = [("", Column::Text), ("", Column::Path)];
    let mut table = table_by_run(comparison, &names, Column::Figure, last);
    for of_stage in rows.chunk_by(|a, b| a.0 == b.0) {
        for (idx, (stage, name, row)) in of_stage.iter().enumerate() {
            let stage = if idx == 0 { *stage } else { "" };
            let mut cells = vec![span(stage, Paint::Quiet), plain(*name)];
            cells.extend((0..comparison.runs.len()).map(|idx| metric_span(row, idx)));
            if is_pair {
                cells.push(change_span(row.changes[1], row.is_better(1)));
            }
            table.row(cells);
            if !is_pair {
                print_changes(&mut table, row);
            }
        }
    }
    table.print(screen);
}

/// Writes what each run differs by under its values, where there are more than two.
fn print_changes(table: &mut Table, row: &MetricRow) {
    if row.better.is_none()
        || row
            .changes
            .iter()
            .all(|change| change.is_none_or(|change| change == 0.0))
    {
        return;
    }
    let mut cells = vec![plain(""), plain("")];
    for (idx, change) in row.changes.iter().enumerate() {
        let mut cell = change_span(*change, row.is_better(idx));
        cell.text.push_str("  ");
        cells.push(cell);
    }
    table.row(cells);
}

fn metric_span(row: &MetricRow, run_idx: usize) -> Span {
    let Some(value) = row.values[run_idx] else {
        return span("–  ", Paint::Quiet);
    };
    let mut cell = value_span(value);
    if row.is_best[run_idx] {
        cell.paint = Paint::Good;
    }
    // The mark has its own column, so that the digits of a column stay below each other.
    cell.text
        .push_str(if row.is_best[run_idx] { " *" } else { "  " });
    cell
}

/// Prints a run a line: what varies in it, and what came out.
fn print_runs_as_rows(screen: &mut Screen, comparison: &Comparison, is_asked: bool) {
    let n_runs = comparison.runs.len();
    screen.heading_with(&counted(n_runs, "run"), &judged_by(comparison));
    let metrics = leading_metrics(comparison);
    let settings = leading_settings(comparison);
    let n_columns = metrics.len() + settings.len();
    let (settings, metrics) = fitting(comparison, settings, metrics, screen.width, is_asked);
    table_of_rows(comparison, &settings, &metrics).print(screen);
    let left_out = n_columns - settings.len() - metrics.len();
    if left_out > 0 {
        screen.line(&[span(
            format!(
                "  {} not shown: --csv has all, --metric chooses",
                counted(left_out, "column")
            ),
            Paint::Quiet,
        )]);
    }
}

/// Returns the columns that fit: the metric that judges, the settings, then further metrics.
fn fitting<'a>(
    comparison: &Comparison,
    mut settings: Vec<&'a SettingRow>,
    all: Vec<&'a MetricRow>,
    room: usize,
    is_asked: bool,
) -> (Vec<&'a SettingRow>, Vec<&'a MetricRow>) {
    let mut others = all.into_iter();
    let mut metrics: Vec<&MetricRow> = others.by_ref().take(1).collect();
    let natural = |settings: &[&SettingRow], metrics: &[&MetricRow]| {
        table_of_rows(comparison, settings, metrics).width_natural()
    };
    let mut used = natural(&settings, &metrics);
    while used > room && settings.len() > 1 {
        settings.pop();
        used = natural(&settings, &metrics);
    }
    for metric in others {
        let is_shown = |shown: &&MetricRow| shown.metric == metric.metric;
        // Unless it was asked for, one loss is enough in a table that has little room.
        if used + metric_columns(metric) > room || !is_asked && metrics.iter().any(is_shown) {
            continue;
        }
        metrics.push(metric);
        match natural(&settings, &metrics) {
            columns if columns <= room => used = columns,
            _ => metrics.truncate(metrics.len() - 1),
        }
    }
    (settings, metrics)
}

/// Returns how much wider a metric makes the table of runs, at least.
fn metric_columns(row: &MetricRow) -> usize {
    const GAP: usize = 2;
    let cells = (0..row.values.len()).map(|idx| width(&metric_span(row, idx).text));
    GAP + cells.max().unwrap_or(0).max(width(&row.metric) + 2)
}

fn judged_by(comparison: &Comparison) -> String {
    match comparison.main_row() {
        Some(row) => {
            let way = if row.better == Some(Better::Higher) {
                "higher"
            } else {
                "lower"
            };
            format!("* the best {} ({way} is better)", row.full_name())
        }
        None => String::new(),
    }
}

/// Returns the metrics that differ, the one that judges first, then those that can be better.
fn leading_metrics(comparison: &Comparison) -> Vec<&MetricRow> {
    let main = comparison.main_row();
    let is_main = |row: &MetricRow| main.is_some_and(|main| main.full_name() == row.full_name());
    let differs = |row: &MetricRow| row.values.iter().any(|value| *value != row.values[0]);
    let mut rows = comparison.telling();
    rows.retain(|row| is_main(row) || differs(row));
    let is_beside = |row: &MetricRow| main.is_some_and(|main| main.stage == row.stage);
    rows.sort_by_key(|row| {
        let is_last = row.is_last.contains(&true);
        (
            !is_main(row),
            row.better.is_none(),
            !is_beside(row),
            is_last,
        )
    });
    rows
}

/// Returns the settings that differ, the one with the largest effect first.
fn leading_settings(comparison: &Comparison) -> Vec<&SettingRow> {
    let effects = &comparison.effects;
    let rank = |row: &SettingRow| effects.iter().position(|effect| effect.setting == row.name);
    let mut rows: Vec<&SettingRow> = comparison.settings.iter().collect();
    rows.sort_by_key(|row| rank(row).unwrap_or(usize::MAX));
    rows
}

fn table_of_rows(
    comparison: &Comparison,
    settings: &[&SettingRow],
    metrics: &[&MetricRow],
) -> Table {
    let mut columns = vec![("", Column::Text), ("run", Column::Text)];
    columns.extend(
        settings
            .iter()
            .map(|row| (last_part(&row.name), Column::Text)),
    );
    let titles: Vec<String> = metrics
        .iter()
        .map(|row| metric_title(row, metrics))
        .collect();
    columns.extend(titles.iter().map(|title| (title.as_str(), Column::Figure)));
    columns.push(("time", Column::Figure));
    let mut table = Table::new(&columns);
    for (idx, report) in comparison.runs.iter().enumerate() {
        let mut cells = vec![letter_span(idx), plain(report.run.name.clone())];
        cells.extend(settings.iter().map(|row| setting_span(&row.values[idx])));
        cells.extend(metrics.iter().map(|row| metric_span(row, idx)));
        let status = &report.run.status;
        cells.push(if status == "done" {
            plain(duration(report.run.elapsed_seconds))
        } else {
            span(status.clone(), status_paint(status))
        });
        table.row(cells);
    }
    table
}

/// Returns a metric's name, with its stage where two stages have one of that name.
fn metric_title(row: &MetricRow, metrics: &[&MetricRow]) -> String {
    let is_shared = metrics
        .iter()
        .filter(|other| other.metric == row.metric)
        .count()
        > 1;
    // Two columns right of the title belong to the mark of the best.
    format!(
        "{}  ",
        if is_shared {
            row.full_name()
        } else {
            row.metric.clone()
        }
    )
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn print_effects(screen: &mut Screen, comparison: &Comparison) {
    if comparison.effects.is_empty() {
        return;
    }
    let metric = comparison.main.as_deref().unwrap_or_default();
    screen.heading_with(
        "Effect of each setting",
        &format!("on {metric}, the largest first"),
    );
    let mut table = Table::new(&[
        ("setting", Column::Path),
        ("value", Column::Text),
        ("runs", Column::Figure),
        ("mean", Column::Figure),
        ("best", Column::Figure),
        ("", Column::Figure),
    ]);
    let mut leader = None;
    let mut setting_before = "";
    for effect in &comparison.effects {
        let is_first = effect.setting != setting_before;
        if is_first {
            leader = Some(effect.mean);
        }
        setting_before = &effect.setting;
        let behind = leader
            .filter(|_| !is_first)
            .map(|leader| (effect.mean - leader) / leader.abs() * 100.0);
        table.row(vec![
            plain(if is_first {
                effect.setting.as_str()
            } else {
                ""
            }),
            plain(effect.value.clone()),
            plain(effect.n_runs.to_string()),
            value_span(effect.mean),
            value_span(effect.best),
            span(behind.map(percent).unwrap_or_default(), Paint::Quiet),
        ]);
    }
    table.print(screen);
}

fn print_curves(screen: &mut Screen, comparison: &Comparison, options: &TerminalOptions) {
    let has_validation = comparison
        .curves
        .iter()
        .any(|row| row.metric == "validation_loss");
    let is_shown = |row: &&CurveRow| match row.metric.as_str() {
        _ if !options.metrics.is_empty() => true,
        "validation_loss" => true,
        // Many noisy curves in one picture say less than the few quiet ones below.
        "loss" => comparison.runs.len() <= LINES_MAX || !has_validation,
        _ => false,
    };
    for row in comparison.curves.iter().filter(is_shown) {
        print_curve_row(screen, comparison, row, options);
    }
}

fn print_curve_row(
    screen: &mut Screen,
    comparison: &Comparison,
    row: &CurveRow,
    options: &TerminalOptions,
) {
    let run_idxs = chosen_runs(comparison, row);
    let mut lines = Vec::new();
    let title = span(format!("{} {}", row.stage, row.metric), Paint::Strong);
    let mut legend = vec![vec![title]];
    for &run_idx in &run_idxs {
        let Some(curve) = comparison.curve(row, run_idx) else {
            continue;
        };
        let letter = letter(run_idx);
        let mark = letter.chars().next().unwrap_or('?');
        let look = if curve.points.len() < 2 {
            Look::Marks(mark)
        } else {
            Look::Lettered(mark)
        };
        lines.push(Line {
            points: curve.along(options.axis),
            paint: series(run_idx),
            look,
        });
        let mut entry = vec![span(letter, series(run_idx))];
        if let Some(last) = curve.last() {
            let paint = if last.is_finite() {
                Paint::Quiet
            } else {
                Paint::Bad
            };
            entry.push(span(format!(" {}", number(last)), paint));
        }
        legend.push(entry);
    }
    let n_left_out = row.curves.iter().flatten().count() - run_idxs.len();
    if n_left_out > 0 {
        legend.push(vec![span(format!("and {n_left_out} more"), Paint::Quiet)]);
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
        height: 12,
        x_title,
        x_tick,
        log: options.log,
    }
    .print(screen);
}

/// Returns the runs whose curves are drawn: all, or the best few by the metric that judges.
fn chosen_runs(comparison: &Comparison, row: &CurveRow) -> Vec<usize> {
    let mut chosen: Vec<usize> = (0..comparison.runs.len())
        .filter(|&idx| row.curves[idx].is_some())
        .collect();
    if chosen.len() <= LINES_MAX {
        return chosen;
    }
    if let Some(main) = comparison.main_row() {
        let better = main.better.unwrap_or(Better::Lower);
        let value = |idx: usize| main.values[idx].unwrap_or(f64::NAN);
        chosen.sort_by(|&a, &b| crate::comparison::preference(better, value(a), value(b)));
    }
    chosen.truncate(LINES_MAX);
    chosen.sort_unstable();
    chosen
}

fn print_samples(screen: &mut Screen, comparison: &Comparison) {
    /// Prompts shown of each stage.
    const PROMPTS_MAX: usize = 15;
    let rows = || {
        comparison
            .samples
            .iter()
            .filter(|row| row.texts.iter().flatten().count() > 1)
    };
    let mut stage_before = "";
    let mut n_shown = 0;
    for row in rows() {
        if row.stage != stage_before {
            screen.heading(&format!("Samples of {}", row.stage));
            stage_before = &row.stage;
            n_shown = 0;
        }
        n_shown += 1;
        if n_shown > PROMPTS_MAX {
            continue;
        }
        let prompt = wrapped(row.prompt.trim(), screen.width.saturating_sub(4))
            .into_iter()
            .next()
            .unwrap_or_default();
        screen.line(&[span(format!("  › {prompt}"), Paint::Quiet)]);
        if comparison.runs.len() == 2 && screen.width >= 60 {
            print_pair(screen, row);
        } else {
            print_stack(screen, row);
        }
    }
}

/// Prints two texts in two columns.
fn print_pair(screen: &mut Screen, row: &SampleRow) {
    const LINES_MAX: usize = 8;
    let columns = (screen.width - 4 - 2 * 2 - 3) / 2;
    let texts: Vec<Vec<String>> = row
        .texts
        .iter()
        .map(|text| text_lines(text.as_deref(), columns))
        .collect();
    let n_lines = texts.iter().map(Vec::len).max().unwrap_or(0);
    for line_idx in 0..n_lines.min(LINES_MAX) {
        let mut spans = vec![plain("    ")];
        for (run_idx, lines) in texts.iter().enumerate() {
            let text = lines.get(line_idx).map(String::as_str).unwrap_or_default();
            let is_cut = line_idx + 1 == LINES_MAX && lines.len() > LINES_MAX;
            let text = if is_cut {
                fitted(&format!("{text} …"), columns).into_owned()
            } else {
                text.to_owned()
            };
            let sign = if line_idx == 0 {
                letter(run_idx)
            } else {
                " ".to_owned()
            };
            let pad = " ".repeat(columns.saturating_sub(width(&clean(&text))));
            spans.extend([span(sign, series(run_idx)), plain(" "), plain(text)]);
            if run_idx == 0 {
                spans.extend([plain(pad), plain("   ")]);
            }
        }
        screen.line(&spans);
    }
}

/// Prints one text below the other, the runs that wrote the same one together.
fn print_stack(screen: &mut Screen, row: &SampleRow) {
    const LINES_MAX: usize = 4;
    const TEXTS_MAX: usize = 8;
    let groups = row.groups();
    for (text, runs) in groups.iter().take(TEXTS_MAX) {
        let mut lead = vec![plain("    ")];
        lead.extend(
            runs.iter()
                .take(LETTERS_MAX)
                .flat_map(|&idx| [letter_span(idx), plain(" ")]),
        );
        if runs.len() > LETTERS_MAX {
            lead.push(span(
                format!("and {} more ", runs.len() - LETTERS_MAX),
                Paint::Quiet,
            ));
        }
        let indent: usize = lead.iter().map(|span| width(&span.text)).sum();
        let lines = text_lines(Some(text), screen.width.saturating_sub(indent));
        for line in lines.iter().take(LINES_MAX) {
            let mut spans = std::mem::replace(&mut lead, vec![plain(" ".repeat(indent))]);
            spans.push(plain(line.clone()));
            screen.line(&spans);
        }
        if lines.len() > LINES_MAX {
            screen.line(&[span(format!("{}…", " ".repeat(indent)), Paint::Quiet)]);
        }
    }
    if groups.len() > TEXTS_MAX {
        screen.line(&[span(
            format!(
                "    and {}",
                counted(groups.len() - TEXTS_MAX, "other text")
            ),
            Paint::Quiet,
        )]);
    }
}

fn text_lines(text: Option<&str>, columns: usize) -> Vec<String> {
    match text {
        None => vec!["–".to_owned()],
        Some(text) if text.trim().is_empty() => vec!["(empty)".to_owned()],
        Some(text) => wrapped(text.trim(), columns),
    }
}

fn print_shared(screen: &mut Screen, comparison: &Comparison) {
    if comparison.shared.is_empty() {
        return;
    }
    screen.heading_with("Stages shared", "the same artifacts, made once");
    let shared = comparison.shared_by_runs();
    let facts: Vec<(&str, String)> = shared
        .iter()
        .map(|(runs, stages)| (runs.as_str(), stages.join(", ")))
        .collect();
    print_labelled(screen, &facts);
}

fn print_costs(screen: &mut Screen, comparison: &Comparison) {
    screen.heading("Cost");
    let mut table = table_by_run(comparison, &[("", Column::Text)], Column::Figure, None);
    let mut row = |label: &str, figure: &dyn Fn(usize) -> String| {
        let mut cells = vec![plain(label)];
        cells.extend((0..comparison.runs.len()).map(|idx| plain(figure(idx))));
        table.row(cells);
    };
    let costs = &comparison.costs;
    row("time", &|idx| duration(costs[idx].elapsed_seconds));
    row("cpu", &|idx| duration(costs[idx].cpu_seconds));
    row("peak memory", &|idx| {
        if costs[idx].peak_memory_bytes == 0 {
            "–".to_owned()
        } else {
            bytes(costs[idx].peak_memory_bytes)
        }
    });
    row("stages made, hit", &|idx| {
        format!("{}, {}", costs[idx].n_made, costs[idx].n_hit)
    });
    row("from scratch", &|idx| duration(costs[idx].stages_seconds));
    table.print(screen);
}
