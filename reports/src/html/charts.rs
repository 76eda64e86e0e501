//! The data of the page's charts.
//!
//! A chart is a list of series with the three abscissae side by side, so that the browser can change
//! between them without asking anyone. Values keep six digits: a picture shows three.

use serde::Serialize;
use serde_json::{Value, json};
use tinylm_registry::load;

use crate::{
    block::{Block, Chart, Document, Series},
    curve::Curve,
};

/// Points of all charts together; a page that is too large opens slowly on a phone.
const POINTS_MAX: usize = 250_000;

#[derive(Serialize)]
pub(super) struct Drawn<'a> {
    title: &'a str,
    note: &'a str,
    wide: bool,
    /// What the values are of, where they tell of the machine: such curves are drawn over time.
    load: Option<&'static str>,
    series: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    /// By which a live page asks for more of it.
    id: String,
    at: &'a str,
    key: &'a str,
    name: &'a str,
    colour: usize,
    marks: bool,
    #[serde(flatten)]
    points: Points,
}

#[derive(Serialize)]
pub(super) struct Points {
    step: Vec<u64>,
    tokens: Option<Vec<Option<f64>>>,
    seconds: Vec<f64>,
    value: Vec<Value>,
}

/// Returns all charts of a document.
pub(super) fn of<'a>(document: &'a Document<'_>) -> Vec<Drawn<'a>> {
    let blocks = document.sections.iter().flat_map(|section| &section.blocks);
    let charts = blocks.filter_map(|block| match block {
        Block::Chart(chart) => Some(chart),
        _ => None,
    });
    let mut n_points = 0;
    charts.map(|chart| drawn(chart, &mut n_points)).collect()
}

/// Returns the points of curves by the ids of their lines.
pub(super) fn points(curves: &[Curve]) -> Value {
    let named = curves
        .iter()
        .map(|curve| (id(curve), json!(Points::of(curve))));
    Value::Object(named.collect())
}

fn drawn<'a>(chart: &'a Chart<'_>, n_points: &mut usize) -> Drawn<'a> {
    let mut series = Vec::new();
    for one in &chart.series {
        *n_points += one.curve.points.len();
        if *n_points <= POINTS_MAX {
            series.push(line(one));
        }
    }
    Drawn {
        title: &chart.title,
        note: &chart.metric,
        wide: chart.is_main,
        load: load_of(&chart.metric),
        series,
    }
}

fn load_of(metric: &str) -> Option<&'static str> {
    match metric {
        load::MEMORY => Some("bytes"),
        load::CPU => Some("cores"),
        _ => None,
    }
}

fn line<'a>(series: &'a Series<'_>) -> Line<'a> {
    Line {
        id: id(series.curve),
        at: &series.at,
        key: &series.key,
        name: &series.name,
        colour: series.colour,
        marks: series.has_marks,
        points: Points::of(series.curve),
    }
}

impl Points {
    pub(super) fn of(curve: &Curve) -> Points {
        // Of a curve that was not read an end is known, and nothing to draw.
        let points = match curve.n_points {
            0 => &[],
            _ => &curve.points[..],
        };
        let has_tokens = points.iter().any(|point| point.tokens.is_some());
        let tokens = points.iter().map(|point| point.tokens.map(f64::round));
        let seconds = points
            .iter()
            .map(|point| (point.seconds * 100.0).round() / 100.0);
        Points {
            step: points.iter().map(|point| point.step).collect(),
            tokens: has_tokens.then(|| tokens.collect()),
            seconds: seconds.collect(),
            value: points.iter().map(|point| value(point.value)).collect(),
        }
    }
}

fn id(curve: &Curve) -> String {
    format!("{}/{}", curve.execution, curve.metric)
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
