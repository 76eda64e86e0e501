//! Points and the lines they should lie on as SVG pictures, in decades both ways.
//!
//! There are two, for a desk and for a phone, of which the page shows one: a single picture made smaller
//! has letters that nobody reads, and drawing it to measure takes a program.

use std::fmt::Write;

use super::escape::escaped;
use crate::{
    block::{Dot, Plot},
    number::tick,
};

/// Widths and heights, and the classes by which the page chooses.
const SIZES: [(f64, f64, &str); 2] = [(1000.0, 420.0, "wide"), (358.0, 300.0, "narrow")];
const TOP: f64 = 24.0;
const BOTTOM: f64 = 42.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
/// Colours of a page before they come again.
const N_COLOURS: usize = 8;

pub(super) fn put(body: &mut String, plot: &Plot) {
    let Some(ranges) = ranges(plot) else {
        return;
    };
    put_key(body, plot);
    for (width, height, class) in SIZES {
        let frame = Frame {
            width,
            height,
            x_range: ranges.0,
            y_range: ranges.1,
        };
        let _ = write!(
            body,
            "<div class=\"scroll {class}\"><svg class=\"plot\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"{}\">",
            escaped(&plot.title),
        );
        put_picture(body, plot, &frame);
        body.push_str("</svg></div>");
    }
}

fn put_picture(body: &mut String, plot: &Plot, frame: &Frame) {
    put_axes(body, plot, frame);
    for group in &plot.groups {
        let colour = group.colour % N_COLOURS;
        let path: Vec<String> = group.line.iter().map(|&at| frame.place(at)).collect();
        if !path.is_empty() {
            let path = path.join("L");
            let _ = write!(body, "<path d=\"M{path}\" stroke=\"var(--s{colour})\"/>");
        }
        for dot in &group.dots {
            put_dot(body, dot, colour, frame);
        }
    }
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
    for (value, label) in apart(ticks(frame.x_range), |value| frame.x(value)) {
        let x = frame.x(value);
        let _ = write!(
            body,
            "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            frame.height - BOTTOM,
            frame.height - BOTTOM + 16.0,
        );
    }
    for (value, label) in ticks(frame.y_range) {
        let y = frame.y(value);
        let _ = write!(
            body,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            frame.width - RIGHT,
            LEFT - 6.0,
            y + 4.0,
        );
    }
    let _ = write!(
        body,
        "<text class=\"title\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
         <text class=\"title\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        frame.width - RIGHT,
        frame.height - 4.0,
        escaped(&plot.x_title),
        LEFT,
        TOP - 10.0,
        escaped(&plot.y_title),
    );
}

type Range = (f64, f64);

/// Returns what the axes reach over, as logarithms.
fn ranges(plot: &Plot) -> Option<(Range, Range)> {
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
    (!all.is_empty()).then(|| {
        (
            range(&mut all.iter().map(|at| at.0.log10())),
            range(&mut all.iter().map(|at| at.1.log10())),
        )
    })
}

/// A picture's measures.
struct Frame {
    width: f64,
    height: f64,
    x_range: Range,
    y_range: Range,
}

impl Frame {
    fn x(&self, value: f64) -> f64 {
        LEFT + (self.width - LEFT - RIGHT) * share(self.x_range, value)
    }

    fn y(&self, value: f64) -> f64 {
        self.height - BOTTOM - (self.height - TOP - BOTTOM) * share(self.y_range, value)
    }

    fn place(&self, at: (f64, f64)) -> String {
        format!("{:.1} {:.1}", self.x(at.0), self.y(at.1))
    }
}

fn share((low, high): (f64, f64), value: f64) -> f64 {
    (value.log10() - low) / (high - low)
}

/// Returns round values within a range of logarithms: of each decade some or, where the range is less
/// than one, values with equal steps between.
fn ticks((low, high): Range) -> Vec<(f64, String)> {
    let units: &[f64] = match high - low {
        width if width > 4.0 => &[1.0],
        width if width > 1.3 => &[1.0, 2.0, 5.0],
        width if width > 0.7 => &[1.0, 2.0, 3.0, 5.0, 7.0],
        _ => return even_ticks(10f64.powf(low), 10f64.powf(high)),
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

/// Leaves out the marks whose labels would touch those before them.
fn apart(ticks: Vec<(f64, String)>, place: impl Fn(f64) -> f64) -> Vec<(f64, String)> {
    let mut end = f64::NEG_INFINITY;
    let has_room = |(value, label): &(f64, String)| {
        let half = 3.6 * label.chars().count() as f64;
        let begin = place(*value) - half;
        let has_room = begin > end + 6.0;
        if has_room {
            end = begin + 2.0 * half;
        }
        has_room
    };
    ticks.into_iter().filter(has_room).collect()
}

/// Four values or more, and no more than ten.
fn even_ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let most = (high - low) / 5.0;
    let power = 10f64.powf(most.log10().floor());
    let units = [5.0, 2.0, 1.0];
    let unit = units.into_iter().find(|unit| unit * power <= most);
    let step = unit.unwrap_or(1.0) * power;
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last)
        .map(|n| n as f64 * step)
        .map(|value| (value, tick(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_enough_marks_and_not_too_many() {
        for low in [3.13, 0.9e6, 1e-4, 21.0] {
            for width in [1.001, 1.02, 1.2, 1.9, 4.0, 10.0, 150.0, 1e5] {
                let range = (f64::log10(low), f64::log10(low * width));
                let n = ticks(range).len();
                assert!((3..=11).contains(&n), "{n} from {low} to {}", low * width);
            }
        }
        let narrow = |value: f64| 56.0 + 286.0 * (value / 1e5).log10() / 4.5f64.log10();
        let marks = apart(ticks((1e5f64.log10(), 4.5e5f64.log10())), narrow);
        let labels: Vec<String> = marks.into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["100k", "150k", "200k", "250k", "350k", "450k"]);
        let labels = ticks((3.13f64.log10(), 3.76f64.log10()));
        let labels: Vec<String> = labels.into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["3.2", "3.3", "3.4", "3.5", "3.6", "3.7"]);
    }
}
