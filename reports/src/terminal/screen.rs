//! Lines of painted text that never exceed a width.
//!
//! Everything a terminal report prints passes through `Screen::line`, which cleans each span and
//! cuts the line, so that the width is kept by construction and not by the care of each table.

use crate::{
    block::{Cell, Tone},
    text::{clean, fitted, width},
};

/// Returns the colour of a tone, as a terminal is told of it: the one place where colours are chosen.
pub fn code(tone: Tone) -> Option<&'static str> {
    const SERIES: [&str; 6] = ["36", "35", "33", "32", "34", "31"];
    match tone {
        Tone::Plain => None,
        Tone::Strong => Some("1"),
        Tone::Quiet => Some("2"),
        Tone::Good | Tone::Best => Some("32"),
        Tone::Warn => Some("33"),
        Tone::Bad => Some("31"),
        Tone::Series(idx) => SERIES.get(idx).copied(),
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Span {
    pub text: String,
    pub tone: Tone,
}

pub(crate) fn span(text: impl Into<String>, tone: Tone) -> Span {
    Span {
        text: text.into(),
        tone,
    }
}

pub(crate) fn plain(text: impl Into<String>) -> Span {
    span(text, Tone::Plain)
}

impl From<&Cell> for Span {
    fn from(cell: &Cell) -> Span {
        span(cell.text.clone(), cell.tone)
    }
}

/// The page in the making.
pub(crate) struct Screen {
    pub width: usize,
    colour: bool,
    out: String,
}

impl Screen {
    pub(crate) fn new(width: usize, colour: bool) -> Self {
        Self {
            width,
            colour,
            out: String::new(),
        }
    }

    pub(crate) fn finish(self) -> String {
        self.out
    }

    /// Leaves one empty line between what was printed and what follows.
    pub(crate) fn gap(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    /// Prints a heading with a quieter remark behind it.
    pub(crate) fn heading_with(&mut self, title: &str, remark: &str) {
        self.gap();
        let title = span(title, Tone::Strong);
        self.line(&[title, span(format!("  {remark}"), Tone::Quiet)]);
    }

    pub(crate) fn line(&mut self, spans: &[Span]) {
        let mut left = self.width;
        let start = self.out.len();
        // The colour that is on; a curve of a hundred characters is one sequence, not a hundred.
        let mut open: Option<&str> = None;
        for span in spans {
            let text = clean(&span.text);
            let text = fitted(&text, left);
            left -= width(&text);
            let code = code(span.tone).filter(|_| self.colour);
            if code != open && !text.trim().is_empty() {
                self.switch(open, code);
                open = code;
            }
            self.out.push_str(&text);
        }
        let end = start + self.out[start..].trim_end_matches(' ').len();
        self.out.truncate(end);
        self.switch(open, None);
        self.out.push('\n');
    }

    /// Prints a sentence of spans, broken between words.
    pub(crate) fn words(&mut self, spans: &[Span]) {
        let (mut line, mut used) = (Vec::new(), 0);
        for one in spans {
            let text = clean(&one.text).into_owned();
            for word in text.split_inclusive(' ') {
                if used > 0 && used + width(word.trim_end()) > self.width {
                    self.line(&std::mem::take(&mut line));
                    used = 0;
                }
                used += width(word);
                line.push(span(word, one.tone));
            }
        }
        self.line(&line);
    }

    fn switch(&mut self, from: Option<&str>, to: Option<&str>) {
        if from.is_some() {
            self.out.push_str("\x1b[0m");
        }
        if let Some(code) = to {
            self.out.push_str("\x1b[");
            self.out.push_str(code);
            self.out.push('m');
        }
    }

    /// Prints entries beside each other, on as many lines as they need.
    pub(crate) fn flow(&mut self, entries: &[Vec<Span>]) {
        const GAP: usize = 3;
        let mut spans: Vec<Span> = Vec::new();
        let mut used = 0;
        for entry in entries {
            let columns: usize = entry.iter().map(|span| width(&clean(&span.text))).sum();
            if used > 0 && used + GAP + columns > self.width {
                self.line(&spans);
                spans = vec![plain(" ")];
                used = 1;
            }
            if used > 0 {
                spans.push(plain(" ".repeat(GAP)));
                used += GAP;
            }
            spans.extend(entry.iter().cloned());
            used += columns;
        }
        self.line(&spans);
    }

    /// Prints one span at the left and one at the right edge.
    pub(crate) fn line_between(&mut self, left: Vec<Span>, right: Span) {
        let used: usize = left.iter().map(|span| width(&clean(&span.text))).sum();
        let room = self.width.saturating_sub(used + width(&clean(&right.text)));
        let mut spans = left;
        spans.push(plain(" ".repeat(room.max(2))));
        spans.push(right);
        self.line(&spans);
    }
}
