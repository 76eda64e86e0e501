//! Reports for programs: JSON, CSV, Markdown.
//!
//! JSON is the value itself. CSV is long rather than wide for one run (a metric a line) and a run a
//! line for several, settings and metrics as columns, which is what a spreadsheet or a data frame
//! wants. Numbers are written in full here: rounding is for people.

use std::fmt::Write;

use serde::Serialize;

use crate::{
    comparison::{Comparison, MetricRow},
    number::{duration, moment, number, percent},
    report::Report,
};

/// Renders a report or a comparison as indented JSON.
pub fn json<T: Serialize>(value: &T) -> String {
    // Maps have text keys and nothing here refuses to be serialised, so this cannot fail.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

/// Renders the numbers of one run, a line for each: `stage,metric,step,value`; no step for a final one.
pub fn report_csv(report: &Report) -> String {
    let mut csv = String::from("stage,metric,step,value\n");
    for last in &report.finals {
        csv_line(
            &mut csv,
            &[&last.stage, &last.metric, "", &exact(last.value)],
        );
    }
    for curve in &report.curves {
        for point in &curve.points {
            csv_line(
                &mut csv,
                &[
                    &curve.stage,
                    &curve.metric,
                    &point.step.to_string(),
                    &exact(point.value),
                ],
            );
        }
    }
    csv
}

/// Renders several runs, one a line, with the settings that differ and all metrics.
pub fn comparison_csv(comparison: &Comparison) -> String {
    let mut headings: Vec<String> = [
        "run",
        "experiment",
        "status",
        "started",
        "seconds",
        "cpu_seconds",
        "peak_memory_bytes",
    ]
    .map(str::to_owned)
    .to_vec();
    headings.extend(comparison.settings.iter().map(|row| row.name.clone()));
    headings.extend(comparison.metrics.iter().map(MetricRow::full_name));
    let mut csv = String::new();
    csv_line(&mut csv, &headings);
    for (idx, report) in comparison.runs.iter().enumerate() {
        let (run, cost) = (&report.run, &comparison.costs[idx]);
        let mut cells = vec![
            run.name.clone(),
            run.experiment.clone(),
            run.status.clone(),
            moment(run.started_ms),
        ];
        cells.extend([
            exact(cost.elapsed_seconds),
            exact(cost.cpu_seconds),
            cost.peak_memory_bytes.to_string(),
        ]);
        cells.extend(
            comparison
                .settings
                .iter()
                .map(|row| row.values[idx].clone().unwrap_or_default()),
        );
        cells.extend(
            comparison
                .metrics
                .iter()
                .map(|row| row.values[idx].map(exact).unwrap_or_default()),
        );
        csv_line(&mut csv, &cells);
    }
    csv
}

/// Renders one run as Markdown, for an issue or a notebook.
pub fn report_markdown(report: &Report) -> String {
    let run = &report.run;
    let mut text = format!("## {}\n\n", marked(&run.name));
    if !run.question.is_empty() {
        let _ = writeln!(text, "{}\n", marked(&run.question));
    }
    let facts = [
        ("experiment", run.experiment.clone()),
        ("status", run.status.clone()),
        ("started", crate::phrases::time_line(report)),
        ("cost", crate::phrases::cost_line(report)),
        (
            "seed",
            run.seed.map(|seed| seed.to_string()).unwrap_or_default(),
        ),
        ("code", crate::phrases::code_line(run)),
        ("machine", crate::phrases::machine_line(run)),
    ];
    table(
        &mut text,
        &["", ""],
        facts.map(|(label, value)| vec![label.to_owned(), value]),
    );
    let changed = report.settings.iter().filter(|setting| !setting.is_default);
    table(
        &mut text,
        &["setting", "value"],
        changed.map(|setting| vec![setting.name.clone(), setting.value.clone()]),
    );
    let stages = report.stages.iter().map(|stage| {
        let time = stage
            .execution
            .as_ref()
            .map(|execution| duration(execution.elapsed_seconds));
        let artifact = stage
            .artifact
            .as_deref()
            .map(crate::number::short_digest)
            .unwrap_or_default();
        vec![
            stage.name.clone(),
            stage.kind.clone(),
            crate::phrases::outcome_text(report, stage),
            time.unwrap_or_default(),
            artifact.to_owned(),
        ]
    });
    table(
        &mut text,
        &["stage", "kind", "outcome", "time", "artifact"],
        stages,
    );
    let finals = report
        .finals
        .iter()
        .map(|last| vec![last.stage.clone(), last.metric.clone(), number(last.value)]);
    table(&mut text, &["stage", "metric", "value"], finals);
    for sample in report.samples_last() {
        let _ = writeln!(
            text,
            "> **{}** {}\n",
            marked(&sample.prompt),
            marked(&sample.text)
        );
    }
    text
}

/// Renders several runs as Markdown: what differs, and what came of it.
pub fn comparison_markdown(comparison: &Comparison) -> String {
    /// More runs than this are read down rather than across.
    const COLUMNS_MAX: usize = 6;
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(comparison.runs.iter().map(|report| report.run.name.clone()));
    for row in &comparison.settings {
        let values = row.values.iter();
        let values = values.map(|value| value.clone().unwrap_or_else(|| "–".to_owned()));
        rows.push(std::iter::once(row.name.clone()).chain(values).collect());
    }
    for row in comparison.telling() {
        let cells = (0..row.values.len()).map(|idx| metric_cell(row, idx));
        rows.push(std::iter::once(row.full_name()).chain(cells).collect());
    }
    let times = comparison
        .costs
        .iter()
        .map(|cost| duration(cost.elapsed_seconds));
    rows.push(std::iter::once("time".to_owned()).chain(times).collect());
    if comparison.runs.len() > COLUMNS_MAX {
        rows = (0..rows[0].len())
            .map(|idx| rows.iter().map(|row| row[idx].clone()).collect())
            .collect();
    }
    let mut text = String::new();
    let headings: Vec<&str> = rows[0].iter().map(String::as_str).collect();
    table(&mut text, &headings, rows[1..].iter().cloned());
    text
}

/// Writes a value, bold where it is the best, with its difference from the first run.
fn metric_cell(row: &MetricRow, run_idx: usize) -> String {
    let Some(value) = row.values[run_idx] else {
        return "–".to_owned();
    };
    let change = row.changes[run_idx]
        .map(|change| format!(" ({})", percent(change)))
        .unwrap_or_default();
    match row.is_best[run_idx] {
        true => format!("\u{1}{}\u{1}{change}", number(value)),
        false => format!("{}{change}", number(value)),
    }
}

/// Writes a table, and nothing where there are no rows.
fn table(text: &mut String, headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        return;
    }
    let mut line = |cells: &mut dyn Iterator<Item = String>| {
        text.push('|');
        for cell in cells {
            // A cell asks for bold with a mark of its own, because stars in it are made harmless.
            let _ = write!(text, " {} |", marked(&cell).replace('\u{1}', "**"));
        }
        text.push('\n');
    };
    line(&mut headings.iter().map(|heading| (*heading).to_owned()));
    line(&mut headings.iter().map(|_| "---".to_owned()));
    for row in rows {
        line(&mut row.into_iter());
    }
    text.push('\n');
}

/// Returns text that Markdown shows as it is: on one line, nothing in it a tag or a sign.
fn marked(text: &str) -> String {
    let mut marked = String::new();
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => marked.push(' '),
            '\u{1}' => marked.push(c),
            c if c.is_control() => marked.push('\u{fffd}'),
            '<' => marked.push_str("&lt;"),
            '>' => marked.push_str("&gt;"),
            '&' => marked.push_str("&amp;"),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '#' => {
                marked.push('\\');
                marked.push(c);
            }
            c => marked.push(c),
        }
    }
    marked
}

/// Writes a number so that reading it gives the same number.
fn exact(value: f64) -> String {
    if value.is_nan() {
        "nan".to_owned()
    } else {
        value.to_string()
    }
}

fn csv_line<T: AsRef<str>>(csv: &mut String, cells: &[T]) {
    for (idx, cell) in cells.iter().enumerate() {
        if idx > 0 {
            csv.push(',');
        }
        csv_cell(csv, cell.as_ref());
    }
    csv.push('\n');
}

fn csv_cell(csv: &mut String, cell: &str) {
    // A spreadsheet would run what begins like a formula; a number may begin with its sign.
    let is_formula =
        cell.starts_with(['=', '+', '-', '@', '\t', '\r']) && cell.parse::<f64>().is_err();
    let cell = if is_formula {
        format!("'{cell}")
    } else {
        cell.to_owned()
    };
    if cell.contains([',', '"', '\n', '\r']) {
        let _ = write!(csv, "\"{}\"", cell.replace('"', "\"\""));
    } else {
        csv.push_str(&cell);
    }
}
