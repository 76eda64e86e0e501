//! Dialogues written as text whose turns have blank lines in them or between them.
//!
//! In a text file a blank line ends a dialogue of lines that begin with names. A paragraph that
//! begins with no name goes on with the turn before it, one that begins with the assistant answers
//! what nobody has answered yet, and a system prompt stands before the dialogue that follows it.

use super::{
    chunk::{Rows, Unit},
    marked::{headed, heads, speaker},
    said::Names,
    shapes::Format,
};
use crate::shared::template::Role;

pub(super) struct Joiner {
    format: Format,
    names: Names,
    bytes_max: usize,
    open: Option<Open>,
}

/// A dialogue that may go on.
struct Open {
    row: u64,
    bytes: Vec<u8>,
    /// How much of `bytes` is the dialogue; the rest is the blank space behind it.
    len: usize,
    is_dialogue: bool,
    has_asked: bool,
    has_answered: bool,
}

impl Joiner {
    pub(super) fn new(format: Format, names: Names, bytes_max: usize) -> Self {
        Self {
            format,
            names,
            bytes_max,
            open: None,
        }
    }

    /// Takes paragraphs; returns the dialogues that ended.
    pub(super) fn take(&mut self, bytes: &[u8], units: &[Unit]) -> Rows {
        let (mut dialogues, mut ended) = (Vec::new(), Vec::new());
        let mut from = 0;
        for unit in units {
            let paragraph = &bytes[unit.at.clone()];
            let goes_on = self.goes_on(paragraph);
            if let Some(open) = self.open.as_mut().filter(|_| goes_on) {
                open.bytes.extend_from_slice(&bytes[from..unit.at.end]);
            } else {
                self.end_into(&mut dialogues, &mut ended);
                self.open = Some(Open {
                    row: unit.row,
                    bytes: paragraph.to_vec(),
                    len: 0,
                    is_dialogue: self.first_speaker(paragraph).is_some(),
                    has_asked: false,
                    has_answered: false,
                });
            }
            let roles = self.roles(paragraph);
            if let Some(open) = &mut self.open {
                open.len = open.bytes.len();
                open.has_asked |= roles.contains(&Role::User);
                open.has_answered |= roles.contains(&Role::Assistant);
            }
            from = unit.at.end;
        }
        if let Some(open) = &mut self.open {
            open.bytes.extend_from_slice(&bytes[from..]);
        }
        Rows::Units {
            bytes: dialogues,
            units: ended,
        }
    }

    /// Ends the last dialogue.
    pub(super) fn end(&mut self) -> Option<Rows> {
        let (mut bytes, mut units) = (Vec::new(), Vec::new());
        self.end_into(&mut bytes, &mut units);
        (!units.is_empty()).then_some(Rows::Units { bytes, units })
    }

    fn end_into(&mut self, bytes: &mut Vec<u8>, units: &mut Vec<Unit>) {
        if let Some(open) = self.open.take() {
            let start = bytes.len();
            bytes.extend_from_slice(&open.bytes[..open.len]);
            let at = start..bytes.len();
            units.push(Unit { row: open.row, at });
        }
    }

    fn goes_on(&self, paragraph: &[u8]) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let has_room = open.bytes.len() + paragraph.len() < self.bytes_max;
            let belongs = match self.first_speaker(paragraph) {
                None => true,
                Some(Role::System) => false,
                Some(Role::User) => !open.has_asked && !open.has_answered,
                Some(Role::Assistant | Role::Rejected) => !open.has_answered,
            };
            open.is_dialogue && has_room && belongs
        })
    }

    /// Returns who speaks first, where a paragraph begins with a name.
    fn first_speaker(&self, paragraph: &[u8]) -> Option<Role> {
        let paragraph = std::str::from_utf8(paragraph).ok()?;
        match self.format {
            Format::Headings => headed(paragraph),
            _ => speaker(paragraph.lines().next()?, &self.names),
        }
    }

    fn roles(&self, paragraph: &[u8]) -> Vec<Role> {
        let paragraph = std::str::from_utf8(paragraph).unwrap_or_default();
        match self.format {
            Format::Headings => heads(paragraph),
            _ => {
                let lines = paragraph.lines();
                lines
                    .filter_map(|line| speaker(line, &self.names))
                    .collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(pieces: &[&str]) -> Vec<String> {
        let mut joiner = Joiner::new(Format::Speakers, Names::new(), 1000);
        let mut dialogues = Vec::new();
        let mut keep = |rows: Rows| {
            if let Rows::Units { bytes, units } = rows {
                let text = |unit: &Unit| String::from_utf8(bytes[unit.at.clone()].to_vec());
                dialogues.extend(units.iter().map(|unit| text(unit).unwrap()));
            }
        };
        for piece in pieces {
            let mut units = Vec::new();
            let mut at = 0;
            for paragraph in piece.split("\n\n") {
                let end = at + paragraph.len();
                if !paragraph.is_empty() {
                    units.push(Unit {
                        row: 1,
                        at: at..end,
                    });
                }
                at = end + 2;
            }
            keep(joiner.take(piece.as_bytes(), &units));
        }
        joiner.end().into_iter().for_each(keep);
        dialogues
    }

    #[test]
    fn a_blank_line_ends_a_dialogue_that_was_answered() {
        let apart = [
            "User: a\nAI: b",
            "User: c\nAI: d\nUser: e",
            "AI: f\nUser: g",
            "AI: h",
        ];
        assert_eq!(joined(&[&apart.join("\n\n")]), apart);
    }

    #[test]
    fn a_blank_line_inside_of_a_turn_or_before_its_answer_ends_nothing() {
        let whole = "User: a\n\nmore\n\nAI: b\n\nand more";
        assert_eq!(joined(&[whole]), [whole]);
        assert_eq!(
            joined(&["User: a\n\n", "\n\nAI: b\n\n"]),
            ["User: a\n\n\n\nAI: b"]
        );
        assert_eq!(
            joined(&["# Title\n\nUser: a\nAI: b"]),
            ["# Title", "User: a\nAI: b"]
        );
    }
}
