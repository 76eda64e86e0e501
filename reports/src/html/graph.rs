//! The graph of a run as an SVG picture, drawn here and not in the browser.
//!
//! Stages stand in columns by their longest way from a source, so every arrow points right. An arrow
//! that passes a column takes a lane of its own there, or it would run behind a stage and seem to
//! come out of it. Within a column things stand near the middle of what they come from, which keeps
//! most arrows from crossing. Graphs here have some ten stages: anything cleverer would not be seen.

use std::fmt::Write;

use super::escape::{class_of_word, escaped};
use crate::{
    block::{Graph, Node},
    text::{clean, fitted, width},
};

const BOX_HEIGHT: f64 = 44.0;
const LANE_HEIGHT: f64 = 12.0;
const GAP_X: f64 = 46.0;
const GAP_Y: f64 = 16.0;
const MARGIN: f64 = 4.0;
/// Columns of a name before it is cut.
const NAME_MAX: usize = 22;

/// A stage, or the lane of an arrow that passes its column.
struct Item<'a> {
    stage: Option<&'a Node>,
    reads: Vec<usize>,
    column: usize,
    x: f64,
    y: f64,
    width: f64,
}

impl Item<'_> {
    fn height(&self) -> f64 {
        if self.stage.is_some() {
            BOX_HEIGHT
        } else {
            LANE_HEIGHT
        }
    }

    fn middle(&self) -> f64 {
        self.y + self.height() / 2.0
    }
}

/// Writes the picture; nothing for a run without stages.
pub(super) fn put(body: &mut String, graph: &Graph) {
    if graph.nodes.is_empty() {
        return;
    }
    let _ = write!(
        body,
        "<div class=\"scroll\">{}</div><p class=\"key\">green was made by this run, grey was there before</p>",
        svg(graph)
    );
}

fn svg(graph: &Graph) -> String {
    let mut items = stages(graph);
    add_lanes(&mut items);
    let columns = ordered_columns(&mut items);
    let (width, height) = place(&mut items, &columns);
    let mut svg = format!(
        "<svg class=\"graph\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"the stages and what they read\">"
    );
    for item in items.iter().filter(|item| item.stage.is_some()) {
        for &from in &item.reads {
            arrow(&mut svg, &items, from, item);
        }
    }
    for item in &items {
        if let Some(stage) = item.stage {
            boxed(&mut svg, stage, item);
        }
    }
    svg + "</svg>"
}

fn stages(graph: &Graph) -> Vec<Item<'_>> {
    let reads: Vec<Vec<usize>> = graph.nodes.iter().map(|node| node.reads.clone()).collect();
    let mut columns = vec![0; reads.len()];
    // As many passes as there are stages settle every graph; a cycle, which no run has, ends too.
    for _ in 0..reads.len() {
        for idx in 0..reads.len() {
            let column = reads[idx]
                .iter()
                .map(|&from| columns[from] + 1)
                .max()
                .unwrap_or(0);
            columns[idx] = column.min(reads.len() - 1);
        }
    }
    let items = graph.nodes.iter().zip(reads).zip(columns);
    items
        .map(|((stage, reads), column)| Item {
            stage: Some(stage),
            reads,
            column,
            x: 0.0,
            y: 0.0,
            width: box_width(stage),
        })
        .collect()
}

/// Gives an arrow over several columns a lane in each that it passes.
fn add_lanes(items: &mut Vec<Item<'_>>) {
    for idx in 0..items.len() {
        for read_idx in 0..items[idx].reads.len() {
            let mut from = items[idx].reads[read_idx];
            for column in items[from].column + 1..items[idx].column {
                items.push(Item {
                    stage: None,
                    reads: vec![from],
                    column,
                    x: 0.0,
                    y: 0.0,
                    width: 0.0,
                });
                from = items.len() - 1;
            }
            items[idx].reads[read_idx] = from;
        }
    }
}

/// Returns the items of each column from top to bottom.
fn ordered_columns(items: &mut [Item<'_>]) -> Vec<Vec<usize>> {
    let n_columns = items.iter().map(|item| item.column).max().unwrap_or(0) + 1;
    let mut columns: Vec<Vec<usize>> = vec![Vec::new(); n_columns];
    for (idx, item) in items.iter().enumerate() {
        columns[item.column].push(idx);
    }
    for column in &mut columns {
        let middle = |idx: &usize| {
            let reads = &items[*idx].reads;
            let sum: f64 = reads.iter().map(|&from| items[from].y).sum();
            if reads.is_empty() {
                *idx as f64
            } else {
                sum / reads.len() as f64
            }
        };
        column.sort_by(|a, b| middle(a).total_cmp(&middle(b)));
        let n_rows = column.len();
        for (row, &idx) in column.iter().enumerate() {
            // From the middle, so that columns of different lengths can be held against each other.
            items[idx].y = row as f64 - (n_rows - 1) as f64 / 2.0;
        }
    }
    columns
}

/// Gives each item its place and returns the size of the picture.
fn place(items: &mut [Item<'_>], columns: &[Vec<usize>]) -> (f64, f64) {
    let heights: Vec<f64> = columns
        .iter()
        .map(|column| {
            column
                .iter()
                .map(|&idx| items[idx].height() + GAP_Y)
                .sum::<f64>()
                - GAP_Y
        })
        .collect();
    let height = heights.iter().copied().fold(0.0, f64::max) + 2.0 * MARGIN;
    let mut x = MARGIN;
    for (column, column_height) in columns.iter().zip(heights) {
        let widest = column
            .iter()
            .map(|&idx| items[idx].width)
            .fold(0.0, f64::max);
        let mut y = (height - column_height) / 2.0;
        for &idx in column {
            let item = &mut items[idx];
            (item.x, item.y) = (x, y);
            if item.stage.is_none() {
                item.width = widest;
            }
            y += item.height() + GAP_Y;
        }
        x += widest + GAP_X;
    }
    (x - GAP_X + MARGIN, height)
}

fn box_width(stage: &Node) -> f64 {
    let columns = [&stage.name, &stage.kind].map(|text| width(&clean(text)).min(NAME_MAX));
    columns[0].max(columns[1]) as f64 * 7.6 + 26.0
}

/// Draws the way from a stage to one that reads it, through the lanes between them.
fn arrow(svg: &mut String, items: &[Item<'_>], from: usize, to: &Item<'_>) {
    let mut lanes = Vec::new();
    let mut start = from;
    while items[start].stage.is_none() {
        lanes.push(start);
        start = items[start].reads[0];
    }
    let start = &items[start];
    let (mut x, mut y) = (start.x + start.width, start.middle());
    let _ = write!(svg, "<path class=\"edge\" d=\"M{x:.1} {y:.1}");
    let mut bend_to = |svg: &mut String, to_x: f64, to_y: f64, leave_x: f64| {
        let bend = ((to_x - x) / 2.0).max(14.0);
        let _ = write!(
            svg,
            "C{:.1} {y:.1} {:.1} {to_y:.1} {to_x:.1} {to_y:.1}",
            x + bend,
            to_x - bend
        );
        if leave_x > to_x {
            let _ = write!(svg, "H{leave_x:.1}");
        }
        (x, y) = (leave_x, to_y);
    };
    for &lane in lanes.iter().rev() {
        let lane = &items[lane];
        bend_to(svg, lane.x, lane.middle(), lane.x + lane.width);
    }
    let (end_x, end_y) = (to.x - 5.0, to.middle());
    bend_to(svg, end_x, end_y, end_x);
    let _ = write!(
        svg,
        "\"/><path class=\"arrow\" d=\"M{:.1} {end_y:.1}l-6 -3.5v7z\"/>",
        end_x + 3.0
    );
}

fn boxed(svg: &mut String, stage: &Node, item: &Item<'_>) {
    let _ = write!(
        svg,
        "<g class=\"{}\" data-at=\"{}\"><title>{}</title><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BOX_HEIGHT}\" rx=\"7\"/>",
        class_of_word(stage.outcome.as_str()),
        escaped(&stage.at),
        escaped(&format!("{} ({}): {}", stage.name, stage.kind, stage.told)),
        item.x,
        item.y,
        item.width,
    );
    for (text, class, down) in [
        (&stage.name, "", 18.5),
        (&stage.kind, " class=\"kind\"", 34.5),
    ] {
        let text = clean(text);
        let text = fitted(&text, NAME_MAX);
        let _ = write!(
            svg,
            "<text{class} x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            item.x + 12.0,
            item.y + down,
            escaped(&text)
        );
    }
    svg.push_str("</g>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{sections::graph, testing::dialogue};

    #[test]
    fn an_arrow_over_a_column_takes_a_lane_past_its_stages() {
        let report = dialogue();
        let graph = graph(&report);
        let mut items = stages(&graph);
        add_lanes(&mut items);
        let columns = ordered_columns(&mut items);
        place(&mut items, &columns);
        let lanes: Vec<&Item<'_>> = items.iter().filter(|item| item.stage.is_none()).collect();
        assert_eq!(lanes.len(), 1, "`perplexity` reads `shards` past `base`");
        let beside = items
            .iter()
            .filter(|item| item.stage.is_some() && item.column == lanes[0].column);
        for stage in beside {
            let is_apart = lanes[0].middle() < stage.y || lanes[0].middle() > stage.y + BOX_HEIGHT;
            assert!(is_apart);
        }
        assert!(svg(&graph).matches("<rect").count() == report.stages.len());
    }
}
