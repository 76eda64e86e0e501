//! Points and the lines they should lie on, in decades both ways.
//!
//! A line is braille without letters, since the letters of its points lie along it and name it; what
//! stands off its line is seen at once.

use super::{
    chart::{Chart, Line, Look},
    screen::{Screen, Span, plain, span},
};
use crate::{
    block::{Plot, Tone},
    number::tick,
};

const HEIGHT: usize = 16;

pub(super) fn print(screen: &mut Screen, plot: &Plot) {
    let mut legend = vec![vec![span(plot.title.clone(), Tone::Strong)]];
    let (mut lines, mut marks) = (Vec::new(), Vec::new());
    for group in &plot.groups {
        let tone = Tone::Series(group.colour);
        let entry: Vec<Span> = vec![span(group.letter, tone), plain(format!(" {}", group.name))];
        legend.push(entry);
        let decades = |(x, y): (f64, f64)| (x.log10(), y);
        lines.push(Line {
            points: group.line.iter().copied().map(decades).collect(),
            tone,
            look: Look::Braille,
        });
        marks.push(Line {
            points: group
                .dots
                .iter()
                .map(|dot| decades((dot.x, dot.y)))
                .collect(),
            tone,
            look: Look::Marks(group.letter),
        });
    }
    lines.append(&mut marks);
    screen.gap();
    screen.flow(&legend);
    Chart {
        lines: &lines,
        height: HEIGHT,
        x_title: &plot.x_title,
        x_tick: |decades| {
            tick(
                format!("{:.1e}", 10f64.powf(decades))
                    .parse()
                    .unwrap_or(decades),
            )
        },
        log: true,
    }
    .print(screen);
}
