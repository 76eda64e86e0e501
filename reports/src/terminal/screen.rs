//! Lines of painted text that never exceed a width.
//!
//! Everything a terminal report prints passes through `Screen::line`, which cleans each span and
//! cuts the line, so that the width is kept by construction and not by the care of each table.

use crate::text::{clean, fitted, width};

/// What a span of text is, not how it looks: the colours are chosen in one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Paint {
    #[default]
    Plain,
    /// A heading or the name of the thing.
    Strong,
    /// What can be skipped.
    Quiet,
    Good,
    Warn,
    Bad,
    /// The n-th of several things drawn together.
    Series(usize),
}

impl Paint {
    fn code(self) -> Option<&'static str> {
        const SERIES: [&str; 6] = ["36", "35", "33", "32", "34", "31"];
        match self {
            Paint::Plain => None,
            Paint::Strong => Some("1"),
            Paint::Quiet => Some("2"),
            Paint::Good => Some("32"),
            Paint::Warn => Some("33"),
            Paint::Bad => Some("31"),
            Paint::Series(idx) => Some(SERIES[idx % SERIES.len()]),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Span {
    pub text: String,
    pub paint: Paint,
}

pub(crate) fn span(text: impl Into<String>, paint: Paint) -> Span {
    Span {
        text: text.into(),
        paint,
    }
}

pub(crate) fn plain(text: impl Into<String>) -> Span {
    span(text, Paint::Plain)
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

    pub(crate) fn heading(&mut self, title: &str) {
        self.gap();
        self.line(&[span(title, Paint::Strong)]);
    }

    /// Prints a heading with a quieter remark behind it.
    pub(crate) fn heading_with(&mut self, title: &str, remark: &str) {
        self.gap();
        self.line(&[
            span(title, Paint::Strong),
            span(format!("  {remark}"), Paint::Quiet),
        ]);
    }

    pub(crate) fn line(&mut self, spans: &[Span]) {
        let mut left = self.width;
        let start = self.out.len();
        // What colour is on; a curve of a hundred characters is one sequence, not a hundred.
        let mut open: Option<&str> = None;
        for span in spans {
            let text = clean(&span.text);
            let text = fitted(&text, left);
            left -= width(&text);
            let code = span.paint.code().filter(|_| self.colour);
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
