//! The graph of a run as an SVG picture, drawn here and not in the browser.
//!
//! Stages stand in columns by their longest way from a source, so every arrow points right; within
//! a column they stand near the middle of what they read, which keeps most arrows from crossing.
//! Graphs here have some ten stages: anything cleverer would not be seen.

use std::fmt::Write;

use super::escape::escaped;
use crate::{
    report::{Report, Stage},
    terminal::text::{clean, fitted, width},
};

const BOX_HEIGHT: f64 = 44.0;
const GAP_X: f64 = 46.0;
const GAP_Y: f64 = 16.0;
const MARGIN: f64 = 4.0;
/// Columns of a name before it is cut.
const NAME_MAX: usize = 22;

struct Node<'a> {
    stage: &'a Stage,
    reads: Vec<usize>,
    column: usize,
    x: f64,
    y: f64,
}

/// Returns the picture; empty for a run without stages.
pub(super) fn svg(report: &Report) -> String {
    let mut nodes = nodes(report);
    if nodes.is_empty() {
        return String::new();
    }
    let columns = ordered_columns(&mut nodes);
    let (width, height) = place(&mut nodes, &columns);
    let mut svg = format!(
        "<svg class=\"graph\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"the stages and what they read\">"
    );
    for node in &nodes {
        for &from in &node.reads {
            edge(&mut svg, &nodes[from], node);
        }
    }
    for node in &nodes {
        boxed(&mut svg, report, node);
    }
    svg + "</svg>"
}

fn nodes(report: &Report) -> Vec<Node<'_>> {
    let place_of = |name: &str| report.stages.iter().position(|stage| stage.name == name);
    let mut nodes: Vec<Node<'_>> = report
        .stages
        .iter()
        .enumerate()
        .map(|(idx, stage)| {
            let reads = stage.reads().into_iter().filter_map(place_of).filter(|from| *from != idx).collect();
            Node { stage, reads, column: 0, x: 0.0, y: 0.0 }
        })
        .collect();
    // As many passes as there are stages settle every graph; a cycle, which no run has, ends too.
    for _ in 0..nodes.len() {
        for idx in 0..nodes.len() {
            let column = nodes[idx].reads.iter().map(|&from| nodes[from].column + 1).max().unwrap_or(0);
            nodes[idx].column = column.min(nodes.len() - 1);
        }
    }
    nodes
}

/// Returns the stages of each column from top to bottom.
fn ordered_columns(nodes: &mut [Node<'_>]) -> Vec<Vec<usize>> {
    let n_columns = nodes.iter().map(|node| node.column).max().unwrap_or(0) + 1;
    let mut columns: Vec<Vec<usize>> = vec![Vec::new(); n_columns];
    for (idx, node) in nodes.iter().enumerate() {
        columns[node.column].push(idx);
    }
    for column in &mut columns {
        let middle = |idx: &usize| {
            let reads = &nodes[*idx].reads;
            let sum: f64 = reads.iter().map(|&from| nodes[from].y).sum();
            if reads.is_empty() { *idx as f64 } else { sum / reads.len() as f64 }
        };
        column.sort_by(|a, b| middle(a).total_cmp(&middle(b)));
        for (row, &idx) in column.iter().enumerate() {
            nodes[idx].y = row as f64;
        }
    }
    columns
}

/// Gives each stage its place and returns the size of the picture.
fn place(nodes: &mut [Node<'_>], columns: &[Vec<usize>]) -> (f64, f64) {
    let n_rows = columns.iter().map(Vec::len).max().unwrap_or(1) as f64;
    let height = n_rows * (BOX_HEIGHT + GAP_Y) - GAP_Y + 2.0 * MARGIN;
    let mut x = MARGIN;
    for column in columns {
        let column_height = column.len() as f64 * (BOX_HEIGHT + GAP_Y) - GAP_Y;
        let top = (height - column_height) / 2.0;
        for (row, &idx) in column.iter().enumerate() {
            nodes[idx].x = x;
            nodes[idx].y = top + row as f64 * (BOX_HEIGHT + GAP_Y);
        }
        let widest = column.iter().map(|&idx| box_width(nodes[idx].stage)).fold(0.0, f64::max);
        x += widest + GAP_X;
    }
    (x - GAP_X + MARGIN, height)
}

fn box_width(stage: &Stage) -> f64 {
    let columns = [&stage.name, &stage.kind].map(|text| width(&clean(text)).min(NAME_MAX));
    columns[0].max(columns[1]) as f64 * 7.6 + 26.0
}

fn edge(svg: &mut String, from: &Node<'_>, to: &Node<'_>) {
    let (x1, y1) = (from.x + box_width(from.stage), from.y + BOX_HEIGHT / 2.0);
    let (x2, y2) = (to.x - 5.0, to.y + BOX_HEIGHT / 2.0);
    let bend = ((x2 - x1) / 2.0).max(14.0);
    let _ = write!(
        svg,
        "<path class=\"edge\" d=\"M{x1:.1} {y1:.1}C{:.1} {y1:.1} {:.1} {y2:.1} {x2:.1} {y2:.1}\"/><path class=\"arrow\" d=\"M{:.1} {y2:.1}l-6 -3.5v7z\"/>",
        x1 + bend,
        x2 - bend,
        x2 + 3.0,
    );
}

fn boxed(svg: &mut String, report: &Report, node: &Node<'_>) {
    let stage = node.stage;
    let outcome = crate::terminal::outcome_text(report, stage);
    let _ = write!(
        svg,
        "<g class=\"{}\"><title>{}</title><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BOX_HEIGHT}\" rx=\"7\"/>",
        super::class_of(&stage.outcome),
        escaped(&format!("{} ({}): {outcome}", stage.name, stage.kind)),
        node.x,
        node.y,
        box_width(stage),
    );
    for (text, class, down) in [(&stage.name, "", 18.5), (&stage.kind, " class=\"kind\"", 34.5)] {
        let text = clean(text);
        let text = fitted(&text, NAME_MAX);
        let _ = write!(svg, "<text{class} x=\"{:.1}\" y=\"{:.1}\">{}</text>", node.x + 12.0, node.y + down, escaped(&text));
    }
    svg.push_str("</g>");
}
