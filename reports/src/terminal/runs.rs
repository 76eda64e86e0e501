//! A table with a row for each of several runs.
//!
//! A few runs stand as columns, so that a figure is read against its neighbour. When they no longer
//! fit, each becomes a row and the columns are what varies: the settings that differ and the
//! metrics runs are judged by. Either way a run keeps its letter through all tables and charts.

use super::{
    screen::{Screen, Span, plain, span},
    table::{Column, Grid},
};
use crate::{
    block::{ByRun, Cell, Group, Holds, Line, Tone},
    number::{counted, letter},
};

pub(super) fn print(screen: &mut Screen, runs: &ByRun) {
    if fits_as_columns(runs.names.len(), screen.width) {
        screen.gap();
        Grid::of(&runs.heads, screen.width).print(screen);
        for group in &runs.groups {
            print_group(screen, group, runs.names.len());
        }
    } else {
        print_as_rows(screen, runs);
    }
}

fn fits_as_columns(n_runs: usize, columns: usize) -> bool {
    const NAMES: usize = 30;
    const FIGURE: usize = 12;
    n_runs <= 2 || NAMES + n_runs * FIGURE <= columns
}

/// Prints a group of lines, a column a run; of two runs the second is held against the first.
fn print_group(screen: &mut Screen, group: &Group, n_runs: usize) {
    let has_best = group.lines.iter().any(has_best);
    let remark = match group.remark.as_str() {
        "" if has_best => "* the better",
        remark => remark,
    };
    screen.heading_with(&group.title, remark);
    let has_changes = group.lines.iter().any(has_change);
    let is_pair = n_runs == 2 && has_changes;
    let mut columns = vec![(plain(""), Column::Path)];
    if group.lines.iter().any(|line| !line.of.is_empty()) {
        columns.insert(0, (plain(""), Column::Text));
    }
    let n_names = columns.len();
    let column = match group.holds {
        Holds::Codes => Column::Text,
        holds => Column::of(holds),
    };
    let heading = |idx: usize| (span(letter(idx), Tone::Series(idx)), column);
    columns.extend((0..n_runs).map(heading));
    if is_pair {
        columns.push((span("B against A", Tone::Quiet), Column::Figure));
    }
    let mut grid = Grid::new(columns);
    let mut of_before = "";
    for line in &group.lines {
        let of = if line.of == of_before { "" } else { &line.of };
        of_before = &line.of;
        let mut row = vec![span(of, Tone::Quiet), plain(line.name.clone())];
        row.drain(..2 - n_names);
        row.extend(line.cells.iter().map(|cell| marked(cell, has_best)));
        if is_pair {
            row.push(change_span(&line.cells[1]));
        }
        grid.row(row);
        if !is_pair && has_change(line) {
            let mut row = vec![plain(""); n_names];
            row.extend(line.cells.iter().map(|cell| {
                let mut change = change_span(cell);
                change.text.push_str("  ");
                change
            }));
            grid.row(row);
        }
    }
    grid.print(screen);
}

/// Whether a line says by how much the better or worse of its values differ.
fn has_change(line: &Line) -> bool {
    let is_told = |cell: &Cell| {
        let change = cell.change.as_ref();
        change.is_some_and(|(text, tone)| text != "=" && *tone != Tone::Quiet)
    };
    line.cells.iter().any(is_told)
}

fn change_span(cell: &Cell) -> Span {
    match &cell.change {
        Some((text, tone)) => span(text.clone(), *tone),
        None => plain(""),
    }
}

/// Marks the best; the mark has its own column, so that the digits of a column stay below each other.
fn marked(cell: &Cell, has_best: bool) -> Span {
    let mut span = Span::from(cell);
    match cell.tone {
        Tone::Best => span.text.push_str(" *"),
        _ if has_best => span.text.push_str("  "),
        _ => {}
    }
    span
}

fn print_as_rows(screen: &mut Screen, runs: &ByRun) {
    screen.heading_with(
        &counted(runs.names.len(), "run"),
        &format!("* {}", runs.remark),
    );
    let lines = runs.groups.iter().flat_map(|group| {
        let lines = group.lines.iter().filter(|line| line.rank.is_some());
        lines.map(move |line| (group.holds, line))
    });
    let lines: Vec<(Holds, &Line)> = lines.collect();
    let chosen = chosen(runs, &lines, screen.width);
    let shown: Vec<(Holds, &Line)> = chosen.iter().map(|&idx| lines[idx]).collect();
    grid(runs, &shown).print(screen);
    if shown.len() < lines.len() {
        let left_out = counted(lines.len() - shown.len(), "column");
        let text = format!("  {left_out} not shown: --csv has all, --metric chooses");
        screen.line(&[span(text, Tone::Quiet)]);
    }
}

/// Chooses the columns that fit, by their rank, and keeps them in the order of their lines.
fn chosen(runs: &ByRun, lines: &[(Holds, &Line)], room: usize) -> Vec<usize> {
    let mut by_rank: Vec<usize> = (0..lines.len()).collect();
    by_rank.sort_by_key(|&idx| lines[idx].1.rank);
    let mut chosen: Vec<usize> = Vec::new();
    for idx in by_rank {
        // Unless it was asked for, one loss is enough in a table that has little room.
        let is_named = |&other: &usize| lines[other].1.name == lines[idx].1.name;
        if !runs.is_asked && chosen.iter().any(is_named) {
            continue;
        }
        let place = chosen.partition_point(|&other| other < idx);
        chosen.insert(place, idx);
        let shown: Vec<(Holds, &Line)> = chosen.iter().map(|&idx| lines[idx]).collect();
        if chosen.len() > 1 && grid(runs, &shown).width_natural() > room {
            chosen.remove(place);
        }
    }
    chosen
}

fn grid(runs: &ByRun, lines: &[(Holds, &Line)]) -> Grid {
    let mut columns = vec![(plain(""), Column::Text), (heading("run"), Column::Text)];
    columns.extend(lines.iter().map(|(holds, line)| match holds {
        Holds::Figures => (heading(&title(line, lines)), Column::Figure),
        _ => (heading(last_part(&line.name)), Column::Text),
    }));
    let mut grid = Grid::new(columns);
    for (idx, name) in runs.names.iter().enumerate() {
        let mut row = vec![span(letter(idx), Tone::Series(idx)), plain(name.clone())];
        row.extend(
            lines
                .iter()
                .map(|(_, line)| marked(&line.cells[idx], has_best(line))),
        );
        grid.row(row);
    }
    grid
}

fn has_best(line: &Line) -> bool {
    line.cells.iter().any(|cell| cell.tone == Tone::Best)
}

fn heading(title: &str) -> Span {
    span(title, Tone::Quiet)
}

/// Returns a metric's name, with its stage where two stages have one of that name.
fn title(line: &Line, lines: &[(Holds, &Line)]) -> String {
    let n_named = lines
        .iter()
        .filter(|(_, other)| other.name == line.name)
        .count();
    let name = match n_named {
        0 | 1 => line.name.clone(),
        _ => format!("{}.{}", line.of, line.name),
    };
    // Two columns right of the title belong to the mark of the best.
    let pad = if has_best(line) { 2 } else { 0 };
    format!("{name}{}", " ".repeat(pad))
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
