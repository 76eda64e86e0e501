//! Reports for programs: JSON and CSV.
//!
//! JSON is the value itself. CSV is long rather than wide for one run (a metric a line) and a run a
//! line for several, settings, metrics and what is known of chance as columns, which is what a
//! spreadsheet or a data frame wants. Numbers are written in full here: rounding is for people.

use std::fmt::Write;

use serde::Serialize;

use crate::{
    comparison::{Comparison, MetricRow},
    fit::Fit,
    number::moment,
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
    let noise = noise_columns(comparison);
    headings.extend(noise.iter().map(|(heading, _)| heading.clone()));
    let mut csv = String::new();
    csv_line(&mut csv, &headings);
    for (idx, report) in comparison.runs.iter().enumerate() {
        let (run, cost) = (&report.run, &comparison.costs[idx]);
        let mut cells = vec![
            run.name.clone(),
            run.experiment.clone(),
            run.status.to_string(),
            moment(run.started_at),
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
        cells.extend(noise.iter().map(|(_, values)| values[idx].clone()));
        csv_line(&mut csv, &cells);
    }
    csv
}

/// Returns what is known of chance as further columns: a run has the numbers of its group.
fn noise_columns(comparison: &Comparison) -> Vec<(String, Vec<String>)> {
    let noise = &comparison.noise;
    let mut columns: Vec<(String, Vec<String>)> = Vec::new();
    let mut put = |group: usize, heading: String, value: String| {
        let idx = columns.iter().position(|(known, _)| *known == heading);
        let idx = idx.unwrap_or_else(|| {
            columns.push((heading, vec![String::new(); comparison.runs.len()]));
            columns.len() - 1
        });
        for &run_idx in &noise.groups[group].runs {
            columns[idx].1[run_idx].clone_from(&value);
        }
    };
    if !noise.spreads.is_empty() {
        for (idx, group) in noise.groups.iter().enumerate() {
            put(idx, "group".to_owned(), group.letters());
        }
    }
    for spread in &noise.spreads {
        let name = format!("{}.{}", spread.stage, spread.metric);
        let deviation = spread.deviation.map(exact).unwrap_or_default();
        put(spread.group, format!("{name}.mean"), exact(spread.mean));
        put(spread.group, format!("{name}.deviation"), deviation);
    }
    let over_seeds = noise.seeds.iter().map(|one| {
        let name = format!("{}.{}.seeds", one.stage, one.metric);
        (one.group, name, one.by, one.estimate)
    });
    let over_documents = noise.documents.iter().map(|one| {
        let name = format!("{}.loss.documents", one.stage);
        (one.group, name, one.estimate.by, Some(one.estimate))
    });
    for (group, name, by, estimate) in over_seeds.chain(over_documents) {
        put(group, format!("{name}.difference"), exact(by));
        for (end, value) in [
            ("low", estimate.map(|one| one.low)),
            ("high", estimate.map(|one| one.high)),
        ] {
            put(
                group,
                format!("{name}.{end}"),
                value.map(exact).unwrap_or_default(),
            );
        }
    }
    columns
}

/// Renders the runs that a law is fitted to and what it says of them, then what it predicts, a line each.
pub fn fit_csv(fit: &Fit) -> String {
    let mut csv = String::from("run,weights,tokens,loss,told,error,error_unseen,from,to\n");
    for run in &fit.runs {
        let (told, at) = (&run.told, run.told.at);
        let mut cells = vec![told.run.clone()];
        let numbers = [
            at.weights,
            at.tokens,
            told.loss,
            run.fitted,
            run.error,
            run.error_unseen,
        ];
        cells.extend(numbers.map(exact));
        cells.extend([String::new(), String::new()]);
        csv_line(&mut csv, &cells);
    }
    for asked in &fit.predictions {
        let optional = |value: Option<f64>| value.map(exact).unwrap_or_default();
        csv_line(
            &mut csv,
            &[
                asked.run.clone().unwrap_or_default(),
                exact(asked.at.weights),
                exact(asked.at.tokens),
                optional(asked.came_out),
                exact(asked.loss),
                String::new(),
                optional(asked.error),
                exact(asked.interval.from),
                exact(asked.interval.to),
            ],
        );
    }
    csv
}

/// Writes a number so that reading it gives the same number.
pub(crate) fn exact(value: f64) -> String {
    if value.is_nan() {
        "nan".to_owned()
    } else {
        value.to_string()
    }
}

pub(crate) fn csv_line<T: AsRef<str>>(csv: &mut String, cells: &[T]) {
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
