//! Tables that fit.
//!
//! Columns start as wide as their widest cell. When the sum is too wide, the widest column that
//! may shrink gives up a column at a time, so that one long path does not starve five short
//! figures; numbers never shrink while a text is left that can.

use super::screen::{Screen, Span, plain, span};
use crate::{
    block::{Holds, Table, Tone},
    text::{clean, fitted, fitted_middle, width},
};

/// Columns between two columns.
const GAP: usize = 2;
/// A text is not shrunk below this while another can give.
const TEXT_MIN: usize = 6;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// Left-aligned, kept whole: it can be typed.
    Name,
    /// Left-aligned, may be shortened at its end.
    Text,
    /// Left-aligned, may be shortened in its middle: what differs stands at the end.
    Path,
    /// Right-aligned, kept whole.
    Figure,
}

impl Column {
    pub(crate) fn of(holds: Holds) -> Column {
        match holds {
            Holds::Names => Column::Name,
            Holds::Texts => Column::Text,
            Holds::Codes => Column::Path,
            Holds::Figures | Holds::Digests => Column::Figure,
        }
    }
}

/// A table laid out in columns of characters.
pub(crate) struct Grid {
    indent: usize,
    columns: Vec<Column>,
    headings: Vec<Span>,
    rows: Vec<Vec<Span>>,
}

impl Grid {
    pub(crate) fn new(columns: Vec<(Span, Column)>) -> Self {
        let (headings, columns) = columns.into_iter().unzip();
        Self {
            indent: 2,
            columns,
            headings,
            rows: Vec::new(),
        }
    }

    /// Lays a table out; spare columns go where it is wider than the room for it.
    pub(crate) fn of(table: &Table, room: usize) -> Self {
        // A column that nothing stands in is none.
        let is_empty = |&idx: &usize| table.rows.iter().all(|row| row[idx].text.is_empty());
        let all = (0..table.columns.len()).filter(|idx| !is_empty(idx));
        let all: Vec<usize> = all.collect();
        let grid = Grid::with(table, &all);
        if grid.width_natural() <= room {
            return grid;
        }
        let kept = all.into_iter().filter(|&idx| !table.columns[idx].is_spare);
        Grid::with(table, &kept.collect::<Vec<_>>())
    }

    /// Begins at the left edge.
    pub(crate) fn unindented(self) -> Self {
        Self { indent: 0, ..self }
    }

    fn with(table: &Table, kept: &[usize]) -> Self {
        let heading = |&idx: &usize| {
            let column = &table.columns[idx];
            let heading = span(column.title.clone(), Tone::Quiet);
            (heading, Column::of(column.holds))
        };
        let mut grid = Grid::new(kept.iter().map(heading).collect());
        let mut group = None;
        for row in &table.rows {
            let mut cells: Vec<Span> = kept.iter().map(|&idx| Span::from(&row[idx])).collect();
            if table.is_grouped && group.replace(&row[0].text) == Some(&row[0].text) {
                cells[0].text.clear();
            }
            grid.row(cells);
        }
        grid
    }

    pub(crate) fn row(&mut self, cells: Vec<Span>) {
        self.rows.push(cells);
    }

    /// Returns the columns the table would like to have.
    pub(crate) fn width_natural(&self) -> usize {
        total(self.indent, &self.widths_natural())
    }

    pub(crate) fn print(&self, screen: &mut Screen) {
        let widths = self.widths(screen.width);
        if self.headings.iter().any(|heading| !heading.text.is_empty()) {
            self.print_row(screen, &widths, &self.headings);
        }
        for row in &self.rows {
            self.print_row(screen, &widths, row);
        }
    }

    fn print_row(&self, screen: &mut Screen, widths: &[usize], cells: &[Span]) {
        let mut spans = vec![plain(" ".repeat(self.indent))];
        for (idx, cell) in cells.iter().enumerate() {
            let text = clean(&cell.text);
            let text = match self.columns[idx] {
                Column::Path => fitted_middle(&text, widths[idx]),
                Column::Name | Column::Text | Column::Figure => fitted(&text, widths[idx]),
            };
            let pad = " ".repeat(widths[idx] - width(&text));
            let cell = span(text, cell.tone);
            match self.columns[idx] {
                Column::Figure => spans.extend([plain(pad), cell]),
                Column::Name | Column::Text | Column::Path => spans.extend([cell, plain(pad)]),
            }
            spans.push(plain(" ".repeat(GAP)));
        }
        spans.pop();
        screen.line(&spans);
    }

    fn widths_natural(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self
            .headings
            .iter()
            .map(|heading| width(&clean(&heading.text)))
            .collect();
        for row in &self.rows {
            for (idx, cell) in row.iter().enumerate() {
                widths[idx] = widths[idx].max(width(&clean(&cell.text)));
            }
        }
        widths
    }

    fn widths(&self, room: usize) -> Vec<usize> {
        let mut widths = self.widths_natural();
        while total(self.indent, &widths) > room {
            let shrinks = |column: Column| matches!(column, Column::Text | Column::Path);
            let texts = (0..widths.len()).filter(|&idx| shrinks(self.columns[idx]));
            let text = texts
                .filter(|&idx| widths[idx] > TEXT_MIN)
                .max_by_key(|&idx| widths[idx]);
            let any = (0..widths.len())
                .filter(|&idx| widths[idx] > 1)
                .max_by_key(|&idx| widths[idx]);
            match text.or(any) {
                Some(idx) => widths[idx] -= 1,
                None => break,
            }
        }
        widths
    }
}

fn total(indent: usize, widths: &[usize]) -> usize {
    indent + widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}
