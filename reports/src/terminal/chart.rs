//! Curves in Unicode.
//!
//! A line is drawn in braille dots, two by four to a character, so that a curve of a thousand
//! points keeps its shape in sixty columns. Braille alone cannot say which line is which without
//! colour, so every line of several carries its letter along its way; and points that are few
//! (validation losses) are drawn as marks of their own. A value that is not a number leaves a gap
//! and a `×` on the top edge: a diverged run must not look like a short one.

use super::screen::{Screen, Span, plain, span};
use crate::{block::Tone, number::tick, text::width};

/// One line of a chart.
pub(crate) struct Line {
    pub points: Vec<(f64, f64)>,
    pub tone: Tone,
    pub look: Look,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Braille,
    /// Braille with this letter along the way.
    Lettered(char),
    Marks(char),
}

pub(crate) struct Chart<'a> {
    pub lines: &'a [Line],
    pub height: usize,
    pub x_title: &'a str,
    pub x_tick: fn(f64) -> String,
    pub log: bool,
}

/// A place of the picture: the dots set in it, or a character that stands over them.
#[derive(Clone, Copy, Default)]
struct Place {
    dots: u8,
    mark: Option<char>,
    tone: Tone,
}

struct Range {
    min: f64,
    max: f64,
}

impl Range {
    fn of(values: impl Iterator<Item = f64>) -> Option<Range> {
        let (min, max) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), value| {
                (min.min(value), max.max(value))
            });
        if min > max {
            return None;
        }
        if min == max {
            // A flat line stands in the middle.
            let half = if min == 0.0 { 1.0 } else { min.abs() * 0.05 };
            return Some(Range {
                min: min - half,
                max: max + half,
            });
        }
        Some(Range { min, max })
    }

    /// Returns where a value lies, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        ((value - self.min) / (self.max - self.min)).clamp(0.0, 1.0)
    }
}

impl Chart<'_> {
    /// Prints the chart; prints nothing when no line has a point.
    pub(crate) fn print(&self, screen: &mut Screen) {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let Some(x_range) = Range::of(points().map(|point| point.0)) else {
            return;
        };
        let Some(y_range) = Range::of(points().map(|point| self.scaled(point.1))) else {
            screen.line(&[span("    every value is NaN or infinite", Tone::Bad)]);
            return;
        };
        let (rows_of_ticks, label_width) = self.y_ticks(&y_range);
        let columns = screen.width.saturating_sub(label_width + 4);
        if columns < 8 {
            return;
        }
        let grid = self.draw(&x_range, &y_range, columns);
        for (row, places) in grid.iter().enumerate() {
            let label = rows_of_ticks
                .iter()
                .find(|(at, _)| *at == row)
                .map(|(_, label)| label.as_str());
            let (edge, label) = (if label.is_some() { "┤" } else { "│" }, label.unwrap_or(""));
            let pad = " ".repeat(label_width - width(label));
            let mut spans = vec![
                plain("  "),
                span(format!("{pad}{label} {edge}"), Tone::Quiet),
            ];
            spans.extend(places.iter().map(place_span));
            screen.line(&spans);
        }
        self.print_x_axis(screen, &x_range, label_width, columns);
    }

    fn scaled(&self, value: f64) -> f64 {
        if self.log { value.log10() } else { value }
    }

    /// Returns the rows and labels of ticks at even distances, two rows apart at least.
    fn y_ticks(&self, range: &Range) -> (Vec<(usize, String)>, usize) {
        let n_rows = self.height;
        let row = |value: f64| ((1.0 - range.share(value)) * (n_rows - 1) as f64).round() as usize;
        let are_apart =
            |ticks: &Vec<f64>| ticks.windows(2).all(|two| row(two[1]) + 2 <= row(two[0]));
        let values = (1..=n_rows / 2 + 1)
            .rev()
            .map(|n| nice_ticks(range.min, range.max, n))
            .find(are_apart);
        let ticks = values.unwrap_or_default().into_iter().map(|value| {
            let written = if self.log { 10f64.powf(value) } else { value };
            (row(value), tick(three_digits(written)))
        });
        let ticks: Vec<(usize, String)> = ticks.collect();
        let label_width = ticks
            .iter()
            .map(|(_, label)| width(label))
            .max()
            .unwrap_or(0)
            .max(4);
        (ticks, label_width)
    }

    fn draw(&self, x_range: &Range, y_range: &Range, columns: usize) -> Vec<Vec<Place>> {
        let mut grid = vec![vec![Place::default(); columns]; self.height];
        let (x_max, y_max) = ((columns * 2 - 1) as f64, (self.height * 4 - 1) as f64);
        for (idx, line) in self.lines.iter().enumerate() {
            let mut places = Vec::new();
            let mut last: Option<(i64, i64)> = None;
            let mut last_broken = None;
            for &(x, y) in &line.points {
                let at_x = (x_range.share(x) * x_max).round() as i64;
                if !x.is_finite() || !self.scaled(y).is_finite() {
                    last = None;
                    let column = at_x.max(0) as usize / 2;
                    let from = last_broken.map_or(column, |from: usize| from.min(column));
                    grid[0][from..=column].fill(Place {
                        dots: 0,
                        mark: Some('×'),
                        tone: Tone::Bad,
                    });
                    last_broken = Some(column);
                    continue;
                }
                last_broken = None;
                let at = (
                    at_x,
                    ((1.0 - y_range.share(self.scaled(y))) * y_max).round() as i64,
                );
                match line.look {
                    Look::Marks(mark) => {
                        let place = &mut grid[at.1 as usize / 4][at.0 as usize / 2];
                        *place = Place {
                            dots: 0,
                            mark: Some(mark),
                            tone: line.tone,
                        };
                    }
                    Look::Braille | Look::Lettered(_) => {
                        stroke(&mut grid, last.unwrap_or(at), at, line.tone);
                        places.push(at);
                        last = Some(at);
                    }
                }
            }
            if let Look::Lettered(letter) = line.look {
                stamp(&mut grid, &places, letter, line.tone, idx, self.lines.len());
            }
        }
        grid
    }

    fn print_x_axis(&self, screen: &mut Screen, range: &Range, label_width: usize, columns: usize) {
        let mut axis: Vec<char> = vec!['─'; columns];
        let mut labels = vec![' '; columns];
        let mut free = 0;
        let ticks = nice_ticks(range.min, range.max, columns / 14);
        let mut placed = Vec::new();
        for (idx, value) in ticks.iter().enumerate() {
            let at = (range.share(*value) * (columns - 1) as f64).round() as usize;
            let label = (self.x_tick)(*value);
            let half = label.chars().count() / 2;
            // The last one carries the name of the axis.
            let is_last = idx + 1 == ticks.len();
            let label: Vec<char> = if is_last {
                format!("{label} {}", self.x_title)
            } else {
                label
            }
            .chars()
            .collect();
            let Some(latest) = columns.checked_sub(label.len()) else {
                continue;
            };
            let start = at.saturating_sub(half).min(latest);
            if is_last {
                // Whatever is in its way is written over.
                placed.retain(|&(_, end)| end < start);
                free = placed.last().map_or(0, |&(_, end)| end);
                labels[free..].fill(' ');
            }
            if start < free {
                continue;
            }
            axis[at] = '┬';
            labels[start..start + label.len()].copy_from_slice(&label);
            free = start + label.len() + 1;
            placed.push((start, start + label.len()));
        }
        let pad = " ".repeat(label_width + 3);
        screen.line(&[span(
            format!("{pad}└{}", axis.iter().collect::<String>()),
            Tone::Quiet,
        )]);
        screen.line(&[span(
            format!("{pad} {}", labels.iter().collect::<String>()),
            Tone::Quiet,
        )]);
    }
}

/// Sets the dots from one point to another.
fn stroke(grid: &mut [Vec<Place>], from: (i64, i64), to: (i64, i64), tone: Tone) {
    // The bits of a braille character, by column and row of the dot.
    const BITS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
    let n_dots = (to.0 - from.0).abs().max((to.1 - from.1).abs()).max(1);
    for idx in 0..=n_dots {
        let x = from.0 + (to.0 - from.0) * idx / n_dots;
        let y = from.1 + (to.1 - from.1) * idx / n_dots;
        let place = &mut grid[y as usize / 4][x as usize / 2];
        place.dots |= BITS[x as usize % 2][y as usize % 4];
        place.tone = tone;
    }
}

/// Writes a line's letter along it, each line's letters at columns of its own.
fn stamp(
    grid: &mut [Vec<Place>],
    places: &[(i64, i64)],
    letter: char,
    tone: Tone,
    idx: usize,
    n_lines: usize,
) {
    let every = (12 * n_lines).max(12) as i64;
    let mut next = (idx as i64 * 12) + 6;
    let mut set = |at: (i64, i64)| {
        grid[at.1 as usize / 4][at.0 as usize / 2] = Place {
            dots: 0,
            mark: Some(letter),
            tone,
        };
    };
    for &at in places {
        if at.0 / 2 >= next {
            set(at);
            next = at.0 / 2 + every;
        }
    }
    if let Some(&end) = places.last() {
        set(end);
    }
}

fn place_span(place: &Place) -> Span {
    match (place.mark, place.dots) {
        (Some(mark), _) => span(mark, place.tone),
        (None, 0) => plain(" "),
        (None, dots) => span(
            char::from_u32(0x2800 + u32::from(dots)).unwrap_or(' '),
            place.tone,
        ),
    }
}

/// Returns about `n` round numbers within a range.
pub(crate) fn nice_ticks(min: f64, max: f64, n: usize) -> Vec<f64> {
    let rough = (max - min) / n.max(1) as f64;
    let magnitude = 10f64.powf(rough.log10().floor());
    let Some(step) = [1.0, 2.0, 2.5, 5.0, 10.0]
        .map(|unit| unit * magnitude)
        .into_iter()
        .find(|step| *step >= rough * 0.999)
    else {
        return vec![min, max];
    };
    let first = (min / step).ceil() as i64;
    let last = (max / step).floor() as i64;
    (first..=last.min(first.saturating_add(64)))
        .map(|idx| idx as f64 * step)
        .filter(|tick| tick.is_finite())
        .collect()
}

fn three_digits(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}

/// Returns one row of blocks for a curve, its smallest value lowest.
pub(crate) fn sparkline(values: &[f64], columns: usize) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let Some(range) = Range::of(values.iter().copied()) else {
        return values.iter().take(columns).map(|_| '×').collect();
    };
    let n_columns = columns.min(values.len());
    (0..n_columns)
        .map(|column| {
            let bucket =
                &values[column * values.len() / n_columns..(column + 1) * values.len() / n_columns];
            let finite: Vec<f64> = bucket
                .iter()
                .copied()
                .filter(|value| value.is_finite())
                .collect();
            if finite.is_empty() {
                return '×';
            }
            let mean = finite.iter().sum::<f64>() / finite.len() as f64;
            BLOCKS[((range.share(mean) * 8.0) as usize).min(7)]
        })
        .collect()
}
