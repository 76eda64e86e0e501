//! The one way to a terminal: whatever is printed is cleaned here, and colours are added after.
//!
//! Names, notes, logs and models' words are other people's text. A [`Shown`] is text that can no
//! longer move the cursor, recolour the screen or turn a line around; only this file makes one, and
//! nothing else in the program writes to standard output or standard error.

use std::{
    fmt,
    io::{self, Write},
};

use serde_json::Value;
use tinylm_pipeline::spec::Diagnostics;
use tinylm_reports::{
    block::{Document, Table, Tone},
    clean_lines, is_hidden, markdown,
    terminal::{self, TerminalOptions},
};

use crate::global::Global;

/// Text fit for a terminal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shown(String);

impl<T: AsRef<str> + ?Sized> From<&T> for Shown {
    fn from(text: &T) -> Shown {
        Shown(clean_lines(text.as_ref()).into_owned())
    }
}

impl From<String> for Shown {
    fn from(text: String) -> Shown {
        Shown::from(&text)
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Shown {
    /// Cleans a text and gives it a colour.
    pub(crate) fn painted(text: &str, tone: Tone, has_color: bool) -> Shown {
        let Shown(text) = Shown::from(text);
        match terminal::colour_code(tone).filter(|_| has_color) {
            Some(code) => Shown(format!("\x1b[{code}m{text}\x1b[0m")),
            None => Shown(text),
        }
    }

    /// Mistakes in a file, with the places they are at. What quotes hostile text has no colours.
    pub(crate) fn diagnostics(diagnostics: &Diagnostics, has_color: bool) -> Shown {
        let plain = diagnostics.render(false);
        match has_color && Shown::from(&plain).0 == plain {
            true => Shown(diagnostics.render(true)),
            false => Shown::from(plain),
        }
    }

    /// A report, whose printer cleans each of its parts.
    pub(crate) fn report(document: &Document<'_>, options: &TerminalOptions) -> Shown {
        Shown(terminal::print(document, options))
    }

    pub(crate) fn table(table: &Table, options: &TerminalOptions) -> Shown {
        Shown(terminal::print_table(table, options))
    }

    pub(crate) fn markdown(document: &Document<'_>) -> Shown {
        Shown::from(markdown::print(document))
    }

    /// JSON, in which a character that would be hidden is spelt out: it means the same.
    pub(crate) fn json(json: &str) -> Shown {
        let mut text = String::with_capacity(json.len());
        for c in json.chars() {
            match is_hidden(c) {
                true => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        text.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                false => text.push(c),
            }
        }
        Shown(text)
    }

    pub(crate) fn then(mut self, next: impl Into<Shown>) -> Shown {
        self.0.push_str(&next.into().0);
        self
    }

    pub(crate) fn trimmed(self) -> Shown {
        Shown(self.0.trim_end().to_owned())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Prints a line of the result. A closed pipe (`| head`) ends the program quietly.
pub(crate) fn print_line(line: impl Into<Shown>) {
    if write_line(io::stdout(), line).is_err() {
        std::process::exit(0);
    }
}

/// Prints a part of the result that ends its lines itself.
pub(crate) fn print_text(text: impl Into<Shown>) {
    put(&text.into().0);
}

/// Prints a line that says what a command has done, unless that is not asked for.
pub(crate) fn say(global: &Global, line: &str) {
    if !global.quiet {
        print_line(line);
    }
}

pub(crate) fn print_json(value: &Value) {
    print_line(Shown::json(&value.to_string()));
}

/// Text on a terminal that is written over by its next state.
#[derive(Debug, Default)]
pub(crate) struct Redrawn {
    /// Lines that stand there now.
    n_lines: usize,
}

impl Redrawn {
    /// Draws what fits a screen of this height over what was drawn last.
    pub(crate) fn draw(&mut self, text: Shown, height: usize) {
        let Shown(text) = text.trimmed();
        let lines: Vec<&str> = text.lines().take(height.saturating_sub(1).max(1)).collect();
        // In one piece, so that nothing flickers; each line is cleared behind its end.
        let mut drawn = self.way_back();
        for line in &lines {
            drawn.push_str(line);
            drawn.push_str("\x1b[K\n");
        }
        drawn.push_str("\x1b[J");
        self.n_lines = lines.len();
        put(&drawn);
    }

    /// Takes away what was drawn.
    pub(crate) fn clear(&mut self) {
        if self.n_lines > 0 {
            put(&(self.way_back() + "\x1b[J"));
        }
        self.n_lines = 0;
    }

    fn way_back(&self) -> String {
        match self.n_lines {
            0 => String::new(),
            n => format!("\x1b[{n}A\r"),
        }
    }
}

fn put(text: &str) {
    let mut out = io::stdout();
    if out
        .write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_err()
    {
        std::process::exit(0);
    }
}

/// Prints a line of the result of what goes on whether or not somebody listens.
pub(crate) fn tell(line: impl Into<Shown>) {
    write_line(io::stdout(), line).ok();
}

/// Prints a line that is no result. Nobody may be listening any more; that is no reason to stop.
pub(crate) fn eprint(line: impl Into<Shown>) {
    write_line(io::stderr(), line).ok();
}

/// Prints a piece of a text that is still being written.
pub(crate) fn print_piece(piece: impl Into<Shown>) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(piece.into().0.as_bytes())?;
    out.flush()
}

fn write_line(mut out: impl Write, line: impl Into<Shown>) -> io::Result<()> {
    writeln!(out, "{}", line.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_ours_and_nobody_elses() {
        let evil = "a\x1b[31mb\u{202e}\u{9b}1mc";
        let painted = Shown::painted(evil, Tone::Good, true);
        assert_eq!(painted.0, "\x1b[32ma␛[31mb\u{fffd}\u{fffd}1mc\x1b[0m");
        assert_eq!(Shown::from(evil).0, "a␛[31mb\u{fffd}\u{fffd}1mc");
    }

    #[test]
    fn json_says_the_same_in_characters_that_can_be_seen() {
        let value = serde_json::json!({"tag": "a\u{202e}\u{9b}\u{e0041}\n"});
        let shown = Shown::json(&value.to_string());
        assert!(!shown.0.chars().any(is_hidden), "{shown}");
        assert_eq!(serde_json::from_str::<Value>(&shown.0).unwrap(), value);
    }
}
