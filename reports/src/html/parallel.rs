//! Parallel coordinates as an SVG picture: an axis for each setting, a line for each run.

use std::fmt::Write;

use super::escape::escaped;
use crate::{
    block::{Across, Parallel},
    text::{clean, fitted},
};

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 300.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 14.0;
const LEFT: f64 = 20.0;
const RIGHT: f64 = 90.0;
/// Columns of a name before it is cut.
const NAME_MAX: usize = 26;
/// Runs as good as this are drawn in green.
const GOOD: f64 = 0.999;

pub(super) fn put(body: &mut String, parallel: &Parallel) {
    let _ = write!(
        body,
        "<div class=\"scroll\"><svg class=\"parallel\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" aria-label=\"settings and what came of them\">"
    );
    let n_gaps = parallel.axes.len().saturating_sub(1).max(1);
    let x = |idx: usize| LEFT + (WIDTH - LEFT - RIGHT) * idx as f64 / n_gaps as f64;
    let mut lines: Vec<&Across> = parallel.lines.iter().collect();
    // The best lie on top.
    lines.sort_by(|a, b| a.merit.total_cmp(&b.merit));
    for line in lines {
        put_line(body, line, &x);
    }
    for (idx, axis) in parallel.axes.iter().enumerate() {
        let x = x(idx);
        let _ = write!(
            body,
            "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
             <text class=\"title\" x=\"{x:.1}\" y=\"14\"{}>{}</text>",
            HEIGHT - BOTTOM,
            match idx {
                0 => "",
                idx if idx == n_gaps => " text-anchor=\"end\" dx=\"80\"",
                _ => " text-anchor=\"middle\"",
            },
            escaped(&fitted(&clean(&axis.title), NAME_MAX)),
        );
        for (place, mark) in &axis.marks {
            let _ = write!(
                body,
                "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x + 5.0,
                y(*place) + 4.0,
                escaped(&fitted(&clean(mark), NAME_MAX)),
            );
        }
    }
    body.push_str("</svg></div>");
}

fn put_line(body: &mut String, line: &Across, x: &dyn Fn(usize) -> f64) {
    let mut path = String::new();
    let mut pen = 'M';
    for (idx, place) in line.places.iter().enumerate() {
        match place {
            Some(place) => {
                let _ = write!(path, "{pen}{:.1} {:.1}", x(idx), y(*place));
                pen = 'L';
            }
            None => pen = 'M',
        }
    }
    let colour = if line.merit >= GOOD { "good" } else { "s0" };
    let _ = write!(
        body,
        "<g data-at=\"{}\"><title>{}</title><path d=\"{path}\" stroke=\"var(--{colour})\" stroke-opacity=\"{:.2}\"/></g>",
        escaped(&line.at),
        escaped(&line.name),
        0.15 + 0.85 * line.merit,
    );
}

fn y(place: f64) -> f64 {
    HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * place
}
