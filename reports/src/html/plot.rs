//! Points and the lines they should lie on as an SVG picture, in decades both ways.

use std::fmt::Write;

use super::escape::escaped;
use crate::{
    block::{Dot, Plot},
    number::tick,
};

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 420.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 42.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
/// Colours of a page before they come again.
const N_COLOURS: usize = 8;

pub(super) fn put(body: &mut String, plot: &Plot) {
    let Some(frame) = Frame::of(plot) else {
        return;
    };
    put_key(body, plot);
    let _ = write!(
        body,
        "<div class=\"scroll\"><svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escaped(&plot.title),
    );
    put_axes(body, plot, &frame);
    for group in &plot.groups {
        let colour = group.colour % N_COLOURS;
        let path: Vec<String> = group.line.iter().map(|&at| frame.place(at)).collect();
        if !path.is_empty() {
            let path = path.join("L");
            let _ = write!(body, "<path d=\"M{path}\" stroke=\"var(--s{colour})\"/>");
        }
        for dot in &group.dots {
            put_dot(body, dot, colour, &frame);
        }
    }
    body.push_str("</svg></div>");
}

fn put_key(body: &mut String, plot: &Plot) {
    body.push_str("<p class=\"key\">");
    for group in &plot.groups {
        let _ = write!(
            body,
            "<span><svg class=\"plot\" width=\"10\" height=\"10\"><circle cx=\"5\" cy=\"5\" r=\"4\" fill=\"var(--s{})\"/></svg> {}</span>",
            group.colour % N_COLOURS,
            escaped(&group.name),
        );
    }
    body.push_str("</p>");
}

fn put_dot(body: &mut String, dot: &Dot, colour: usize, frame: &Frame) {
    let _ = write!(
        body,
        "<g data-at=\"{}\"><title>{}</title><circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"var(--s{colour})\"/></g>",
        escaped(&dot.at),
        escaped(&dot.name),
        frame.x(dot.x),
        frame.y(dot.y),
    );
}

fn put_axes(body: &mut String, plot: &Plot, frame: &Frame) {
    for (value, label) in ticks(frame.x_range) {
        let x = frame.x(value);
        let _ = write!(
            body,
            "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 16.0,
        );
    }
    for (value, label) in ticks(frame.y_range) {
        let y = frame.y(value);
        let _ = write!(
            body,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0,
        );
    }
    let _ = write!(
        body,
        "<text class=\"title\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
         <text class=\"title\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        WIDTH - RIGHT,
        HEIGHT - 4.0,
        escaped(&plot.x_title),
        LEFT,
        TOP - 10.0,
        escaped(&plot.y_title),
    );
}

struct Frame {
    x_range: (f64, f64),
    y_range: (f64, f64),
}

impl Frame {
    fn of(plot: &Plot) -> Option<Frame> {
        let dots = plot.groups.iter().flat_map(|group| &group.dots);
        let lines = plot.groups.iter().flat_map(|group| &group.line);
        let all = dots.map(|dot| (dot.x, dot.y)).chain(lines.copied());
        let all: Vec<(f64, f64)> = all.filter(|(x, y)| *x > 0.0 && *y > 0.0).collect();
        let range = |values: &mut dyn Iterator<Item = f64>| {
            let ends = (f64::INFINITY, f64::NEG_INFINITY);
            let (low, high) = values.fold(ends, |ends, n| (ends.0.min(n), ends.1.max(n)));
            // A little room, and some width where all is one.
            let room = 0.03 * (high - low) + 1e-3;
            (low - room, high + room)
        };
        (!all.is_empty()).then(|| Frame {
            x_range: range(&mut all.iter().map(|at| at.0.log10())),
            y_range: range(&mut all.iter().map(|at| at.1.log10())),
        })
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * share(self.x_range, value)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share(self.y_range, value)
    }

    fn place(&self, at: (f64, f64)) -> String {
        format!("{:.1} {:.1}", self.x(at.0), self.y(at.1))
    }
}

fn share((low, high): (f64, f64), value: f64) -> f64 {
    (value.log10() - low) / (high - low)
}

/// Returns round values within a range of logarithms: one, two and five of each decade, or more where
/// it is less than one.
fn ticks((low, high): (f64, f64)) -> Vec<(f64, String)> {
    let units: &[f64] = match high - low {
        width if width > 4.0 => &[1.0],
        width if width > 0.7 => &[1.0, 2.0, 5.0],
        width if width > 0.3 => &[1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0],
        _ => &[
            1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2.0, 2.2, 2.4, 2.6, 2.8, 3.0, 3.5, 4.0, 4.5,
            5.0, 5.5, 6.0, 7.0, 8.0, 9.0,
        ],
    };
    let mut ticks = Vec::new();
    for decade in low.floor() as i32..=high.ceil() as i32 {
        for unit in units {
            let value = unit * 10f64.powi(decade);
            if (low..=high).contains(&value.log10()) {
                ticks.push((value, tick(value)));
            }
        }
    }
    ticks
}
