//! Tables that fit.
//!
//! Columns start as wide as their widest cell. When the sum is too wide, the widest column that
//! may shrink gives up a column at a time, so that one long path does not starve five short
//! figures; numbers never shrink while a text is left that can.

use super::screen::{Paint, Screen, Span, plain, span};
use crate::text::{clean, fitted, fitted_middle, width};

/// Columns between two columns.
const GAP: usize = 2;
/// A text is not shrunk below this while another can give.
const TEXT_MIN: usize = 6;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// Left-aligned, may be shortened at its end.
    Text,
    /// Left-aligned, may be shortened in its middle: what differs stands at the end.
    Path,
    /// Right-aligned, kept whole.
    Figure,
}

pub(crate) struct Table {
    indent: usize,
    columns: Vec<Column>,
    headings: Vec<Span>,
    rows: Vec<Vec<Span>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&str, Column)]) -> Self {
        Self {
            indent: 2,
            columns: columns.iter().map(|(_, column)| *column).collect(),
            headings: columns
                .iter()
                .map(|(title, _)| span(*title, Paint::Quiet))
                .collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn indented(mut self, indent: usize) -> Self {
        self.indent = indent;
        self
    }

    /// Paints the heading of a column, where the column stands for a run.
    pub(crate) fn paint_heading(&mut self, column_idx: usize, paint: Paint) {
        self.headings[column_idx].paint = paint;
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
                Column::Text | Column::Figure => fitted(&text, widths[idx]),
            };
            let pad = " ".repeat(widths[idx] - width(&text));
            let cell = span(text, cell.paint);
            match self.columns[idx] {
                Column::Figure => spans.extend([plain(pad), cell]),
                Column::Text | Column::Path => spans.extend([cell, plain(pad)]),
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
            let texts = (0..widths.len()).filter(|&idx| self.columns[idx] != Column::Figure);
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
