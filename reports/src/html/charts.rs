//! What the page draws, as data.
//!
//! A chart is a list of series with the three abscissae side by side, so that the browser can change
//! between them without asking anyone. Values keep six digits: a picture shows three.

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    comparison::{Comparison, CurveRow},
    curve::{Curve, is_loss},
    phrases::letter,
    report::Report,
};

/// Points of all charts together; a page that is too large opens slowly on a phone.
const POINTS_MAX: usize = 250_000;

#[derive(Serialize)]
pub(super) struct Chart {
    title: String,
    note: String,
    wide: bool,
    series: Vec<Series>,
}

#[derive(Serialize)]
struct Series {
    /// Series with one key are hidden together.
    key: String,
    name: String,
    colour: usize,
    marks: bool,
    step: Vec<u64>,
    tokens: Option<Vec<Option<f64>>>,
    seconds: Vec<f64>,
    value: Vec<Value>,
}

/// Returns the charts of one run: the losses of a stage together, everything else by itself.
pub(super) fn of_report(report: &Report) -> Vec<Chart> {
    let mut charts = Vec::new();
    for stage in &report.stages {
        let curves = || {
            report
                .curves
                .iter()
                .filter(|curve| curve.stage == stage.name && !curve.points.is_empty())
        };
        let losses: Vec<&Curve> = curves().filter(|curve| curve.is_loss()).collect();
        if !losses.is_empty() {
            charts.push(chart(stage.name.clone(), "loss".to_owned(), true, &losses));
        }
        charts.extend(
            curves()
                .filter(|curve| !curve.is_loss())
                .map(|curve| chart(stage.name.clone(), curve.metric.clone(), false, &[curve])),
        );
    }
    // Wide ones first: small ones then fill rows of two.
    charts.sort_by_key(|chart| !chart.wide);
    charts
}

/// Returns the charts of several runs: one for each metric, a series for each run.
pub(super) fn of_comparison(comparison: &Comparison) -> Vec<Chart> {
    let mut rows: Vec<&CurveRow> = comparison.curves.iter().collect();
    rows.sort_by_key(|row| match row.metric.as_str() {
        "validation_loss" => 0,
        "loss" => 1,
        _ => 2,
    });
    let mut n_points = 0;
    let mut charts = Vec::new();
    for row in rows {
        let mut series = Vec::new();
        for run_idx in 0..comparison.runs.len() {
            let Some(curve) = comparison
                .curve(row, run_idx)
                .filter(|curve| !curve.points.is_empty())
            else {
                continue;
            };
            n_points += curve.points.len();
            if n_points > POINTS_MAX {
                continue;
            }
            let name = format!("{} {}", letter(run_idx), comparison.runs[run_idx].run.name);
            series.push(series_of(
                curve,
                run_idx.to_string(),
                name,
                run_idx,
                curve.points.len() < 2,
            ));
        }
        if !series.is_empty() {
            charts.push(Chart {
                title: row.stage.clone(),
                note: row.metric.clone(),
                wide: is_loss(&row.metric),
                series,
            });
        }
    }
    charts
}

fn chart(title: String, note: String, wide: bool, curves: &[&Curve]) -> Chart {
    let densest = curves.iter().map(|curve| curve.n_points).max().unwrap_or(0);
    let series = curves.iter().enumerate().map(|(idx, curve)| {
        let key = format!("{} {}", curve.stage, curve.metric);
        let is_marked = curve.n_points < 2 || idx > 0 && curve.n_points * 4 <= densest;
        series_of(curve, key, curve.metric.clone(), idx, is_marked)
    });
    Chart {
        title,
        note,
        wide,
        series: series.collect(),
    }
}

fn series_of(curve: &Curve, key: String, name: String, colour: usize, marks: bool) -> Series {
    let points = &curve.points;
    let has_tokens = points.iter().any(|point| point.tokens.is_some());
    Series {
        key,
        name,
        colour,
        marks,
        step: points.iter().map(|point| point.step).collect(),
        tokens: has_tokens.then(|| {
            points
                .iter()
                .map(|point| point.tokens.map(f64::round))
                .collect()
        }),
        seconds: points
            .iter()
            .map(|point| (point.seconds * 100.0).round() / 100.0)
            .collect(),
        value: points.iter().map(|point| value(point.value)).collect(),
    }
}

/// Returns a value with six digits, or the word for what JSON cannot hold.
fn value(value: f64) -> Value {
    if value.is_nan() {
        return json!("nan");
    }
    if value.is_infinite() {
        return json!(if value > 0.0 { "inf" } else { "-inf" });
    }
    json!(format!("{value:.5e}").parse::<f64>().unwrap_or(value))
}
