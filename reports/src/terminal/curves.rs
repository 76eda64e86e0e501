//! Charts one below the other, and small ones as a line each.

use tinylm_registry::load::{self, is_load};

use super::{
    chart::{Chart as Picture, Line, Look, sparkline},
    options::TerminalOptions,
    screen::{Screen, Span, plain, span},
    table::{Column, Grid},
};
use crate::{
    block::{Chart, Series, Tone},
    curve::Axis,
    number::{bytes, counted, number, thousands, tick},
};

/// Curves in one chart; more cannot be told apart.
const LINES_MAX: usize = 6;

pub(super) fn print(
    screen: &mut Screen,
    charts: &[&Chart<'_>],
    options: &TerminalOptions,
    left_out: &mut Vec<String>,
) {
    let has_validation = charts.iter().any(|chart| chart.metric == "validation_loss");
    // Many noisy curves in one picture say less than the few quiet ones below.
    let is_too_noisy = |chart: &Chart<'_>| {
        has_validation && chart.metric == "loss" && chart.series.len() > LINES_MAX
    };
    let large = charts
        .iter()
        .filter(|chart| chart.is_main && !is_too_noisy(chart));
    let large: Vec<&&Chart<'_>> = large.collect();
    // Of several trainings the last ones matter most.
    let n_earlier = large.len().saturating_sub(2);
    for (idx, chart) in large.into_iter().enumerate() {
        if idx < n_earlier && options.is_brief {
            left_out.push(format!("the curve of {}", chart.title));
        } else {
            print_chart(screen, chart, options);
        }
    }
    // A brief report does not even name the load of the machine.
    let is_small = |chart: &&&Chart<'_>| {
        let is_told = !options.is_brief || !is_load(&chart.metric);
        !chart.is_main && chart.series[0].letter.is_none() && is_told
    };
    let small: Vec<&&Chart<'_>> = charts.iter().filter(is_small).collect();
    if options.is_brief && !small.is_empty() {
        left_out.push(counted(small.len(), "small curve"));
    } else if !small.is_empty() {
        screen.gap();
        sparklines(&small, screen.width).print(screen);
    }
}

fn sparklines(charts: &[&&Chart<'_>], width: usize) -> Grid {
    let columns = [
        ("", Column::Text),
        ("", Column::Text),
        ("", Column::Text),
        ("last", Column::Figure),
        ("lowest", Column::Figure),
        ("highest", Column::Figure),
    ];
    let heading = |(title, column)| (span(title, Tone::Quiet), column);
    let mut grid = Grid::new(columns.map(heading).to_vec());
    let mut stage_before = "";
    for chart in charts {
        let stage = if chart.title == stage_before {
            ""
        } else {
            &chart.title
        };
        stage_before = &chart.title;
        let points = &chart.series[0].curve.points;
        let values: Vec<f64> = points.iter().map(|point| point.value).collect();
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        let last = values.last().copied().unwrap_or(f64::NAN);
        let written = |value: f64| match chart.metric.as_str() {
            load::MEMORY => bytes(value as u64),
            _ => number(value),
        };
        let tone = if last.is_finite() {
            Tone::Plain
        } else {
            Tone::Bad
        };
        grid.row(vec![
            span(stage, Tone::Quiet),
            plain(chart.metric.clone()),
            span(sparkline(&values, (width / 3).min(40)), Tone::Series(0)),
            span(written(last), tone),
            span(written(finite().fold(f64::NAN, f64::min)), Tone::Quiet),
            span(written(finite().fold(f64::NAN, f64::max)), Tone::Quiet),
        ]);
    }
    grid
}

/// Draws the curves of a chart, or of its best runs where there are many.
fn print_chart(screen: &mut Screen, chart: &Chart<'_>, options: &TerminalOptions) {
    let mut shown: Vec<&Series<'_>> = chart.series.iter().collect();
    shown.sort_by_key(|series| series.rank);
    shown.truncate(LINES_MAX);
    shown.sort_by_key(|series| series.colour);
    let has_letters = chart.series[0].letter.is_some();
    let title = match has_letters {
        true => format!("{} {}", chart.title, chart.metric),
        false => chart.title.clone(),
    };
    let mut legend = vec![vec![span(title, Tone::Strong)]];
    let mut lines = Vec::new();
    for series in &shown {
        let look = look(series);
        let tone = Tone::Series(series.colour);
        lines.push(Line {
            points: series.curve.along(options.axis),
            tone,
            look,
        });
        legend.push(legend_entry(series, look, tone));
    }
    if shown.len() < chart.series.len() {
        let rest = format!("and {} more", chart.series.len() - shown.len());
        legend.push(vec![span(rest, Tone::Quiet)]);
    }
    screen.gap();
    screen.flow(&legend);
    let (x_title, x_tick) = axis_look(options.axis);
    if lines.iter().all(|line| line.points.is_empty()) {
        let text = format!("  no {x_title} were recorded for these curves");
        return screen.line(&[span(text, Tone::Quiet)]);
    }
    Picture {
        lines: &lines,
        height: match (has_letters, options.is_brief) {
            (true, _) => 12,
            (false, false) => 11,
            (false, true) => 7,
        },
        x_title,
        x_tick,
        log: options.log,
    }
    .print(screen);
}

fn look(series: &Series<'_>) -> Look {
    const MARKS: [char; 4] = ['●', '◆', '▲', '■'];
    let idx = series.colour;
    match series
        .letter
        .as_deref()
        .and_then(|text| text.chars().next())
    {
        Some(letter) if series.has_marks => Look::Marks(letter),
        Some(letter) => Look::Lettered(letter),
        None if series.has_marks => Look::Marks(MARKS[idx % MARKS.len()]),
        None if idx > 0 && series.curve.n_points < 20 => Look::Marks(MARKS[idx % MARKS.len()]),
        None if idx == 0 => Look::Braille,
        None => Look::Lettered(char::from_digit(idx as u32 + 10, 36).unwrap_or('?')),
    }
}

fn legend_entry(series: &Series<'_>, look: Look, tone: Tone) -> Vec<Span> {
    let mut spans = match (&series.letter, look) {
        (Some(letter), _) => vec![span(letter.clone(), tone)],
        (None, Look::Braille) => vec![span("⠒⠒", tone)],
        (None, Look::Lettered(letter)) => vec![span(format!("⠒{letter}⠒"), tone)],
        (None, Look::Marks(mark)) => vec![span(mark, tone)],
    };
    if series.letter.is_none() {
        spans.push(plain(format!(" {}", series.name)));
    }
    let curve = series.curve;
    if let Some(last) = curve.last() {
        spans.push(plain(" "));
        let tone = if last.is_finite() {
            Tone::Quiet
        } else {
            Tone::Bad
        };
        spans.push(span(number(last), tone));
    }
    let broken = curve.points.iter().find(|point| !point.value.is_finite());
    if let Some(broken) = broken.filter(|_| series.letter.is_none()) {
        let step = thousands(broken.step);
        let text = format!(" × {} at step {step}", number(broken.value));
        spans.push(span(text, Tone::Bad));
    }
    spans
}

fn axis_look(axis: Axis) -> (&'static str, fn(f64) -> String) {
    match axis {
        Axis::Step => ("steps", tick),
        Axis::Tokens => ("tokens", tick),
        Axis::Time => ("time", short_duration),
    }
}

/// Writes the tick of a time axis.
fn short_duration(seconds: f64) -> String {
    match seconds {
        _ if seconds < 120.0 => format!("{}s", tick(seconds)),
        _ if seconds < 7_200.0 => format!("{}m", tick((seconds / 6.0).round() / 10.0)),
        _ => format!("{}h", tick((seconds / 360.0).round() / 10.0)),
    }
}
