//! From a chunk of rows to documents; runs on any thread.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tinylm_pipeline::StageError;

use super::{
    chunk::{self, Chunk, Lost, Unit},
    conversations::{Conversation, Left},
    csv, find, read,
    settings::{NormalizeSettings, Pairs, SystemPrompts},
    source::{Cells, Source},
    table,
};
use crate::kinds::normalize::{
    cell::Cell,
    said::{Said, Turn},
};
use crate::shared::{
    documents::{self, Digest, Encoded, Encoder, Rows},
    template::Role,
};

/// A dialogue of more turns is rejected: each takes many times its bytes.
const TURNS_MAX: usize = 1 << 20;

/// A row group is made by the thread that read its rows if it is at least this large.
const GROUP_BYTES_MIN: usize = documents::GROUP_BYTES / 8;

/// A row that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) row: u64,
    pub(super) reason: String,
    /// It could be read, but the author does not want such rows.
    pub(super) is_filtered: bool,
}

/// What became of a chunk.
pub(super) struct Made {
    pub(super) source_idx: usize,
    pub(super) position: u64,
    pub(super) documents: Vec<Documents>,
    pub(super) rejected: Vec<Rejection>,
    pub(super) tally: Tally,
}

pub(super) enum Documents {
    /// Few rows, to be put together with others.
    Rows(Box<Rows>),
    Encoded(Encoded),
}

/// Counts over rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) rows: u64,
    pub(super) documents: u64,
    pub(super) turns: u64,
    /// Bytes of contents.
    pub(super) content_bytes: u64,
    pub(super) rejected: u64,
    pub(super) filtered: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.documents += other.documents;
        self.turns += other.turns;
        self.content_bytes += other.content_bytes;
        self.rejected += other.rejected;
        self.filtered += other.filtered;
    }

    pub(super) fn write(&self, into: &mut Map<String, Value>) {
        for (name, count) in [
            ("rows", self.rows),
            ("documents", self.documents),
            ("turns", self.turns),
            ("content_bytes", self.content_bytes),
            ("rejected", self.rejected),
            ("filtered", self.filtered),
        ] {
            into.insert(name.to_owned(), json!(count));
        }
    }
}

/// Everything about the settings that concerns one row.
pub(super) struct Recipe<'a> {
    settings: &'a NormalizeSettings,
}

impl<'a> Recipe<'a> {
    pub(super) fn new(settings: &'a NormalizeSettings) -> Self {
        Self { settings }
    }

    /// Makes documents of a chunk and encodes them if there are enough.
    pub(super) fn make(
        &self,
        source: &Source,
        source_idx: usize,
        chunk: Chunk,
        encoder: &Encoder,
    ) -> Result<Made, StageError> {
        let mut making = Making {
            recipe: self,
            source,
            encoder,
            rows: Rows::default(),
            documents: Vec::new(),
            rejected: Vec::new(),
            tally: Tally::default(),
        };
        for lost in chunk.rejected {
            making.lose(lost);
        }
        match chunk.rows {
            chunk::Rows::Units { bytes, units } => {
                making.reserve(units.len(), bytes.len());
                making.units(&bytes, &units)?;
            }
            chunk::Rows::Table { table, first_row } => {
                making.table(&table::rows(&table), first_row)?
            }
            chunk::Rows::Conversations(conversations) => {
                let mut conversations = conversations.into_iter();
                conversations.try_for_each(|conversation| making.conversation(conversation))?;
            }
        }
        making.close()?;
        Ok(Made {
            source_idx,
            position: chunk.position,
            documents: making.documents,
            rejected: making.rejected,
            tally: making.tally,
        })
    }
}

struct Making<'a> {
    recipe: &'a Recipe<'a>,
    source: &'a Source,
    encoder: &'a Encoder,
    rows: Rows,
    documents: Vec<Documents>,
    rejected: Vec<Rejection>,
    tally: Tally,
}

impl Making<'_> {
    /// Makes room for the contents of so many bytes of a file.
    fn reserve(&mut self, n_rows: usize, n_bytes: usize) {
        self.rows.reserve_rows(n_rows);
        match self.source.shape.format.is_of_raw_text() {
            true => self.rows.reserve_texts(n_bytes),
            false => self.rows.reserve_contents(n_bytes),
        }
    }

    /// Closes a row group.
    fn close(&mut self) -> Result<(), StageError> {
        let rows = std::mem::take(&mut self.rows);
        // Where documents are counted out, the last of them may stand inside a chunk.
        let is_counted = self.recipe.settings.max_documents.is_some();
        self.documents
            .push(if is_counted || rows.n_bytes() < GROUP_BYTES_MIN {
                Documents::Rows(Box::new(rows))
            } else {
                Documents::Encoded(self.encoder.encode(rows)?)
            });
        Ok(())
    }

    fn reject(&mut self, row: u64, reason: String) {
        self.lose(Lost {
            row,
            n_rows: 1,
            reason,
        });
    }

    fn lose(&mut self, lost: Lost) {
        self.tally.rows += lost.n_rows;
        self.tally.rejected += lost.n_rows;
        self.rejected.push(Rejection {
            row: lost.row,
            reason: lost.reason,
            is_filtered: false,
        });
    }

    fn units(&mut self, bytes: &[u8], units: &[Unit]) -> Result<(), StageError> {
        if let Cells::Csv { columns, .. } = &self.source.cells {
            let mut units = units.iter();
            return units.try_for_each(|unit| self.record(&bytes[unit.at.clone()], unit, columns));
        }
        for unit in units {
            self.unit(&bytes[unit.at.clone()], unit.row)?;
        }
        Ok(())
    }

    fn unit(&mut self, bytes: &[u8], row: u64) -> Result<(), StageError> {
        let outcome = match &self.source.cells {
            Cells::Text => text(bytes)
                .map_err(Refusal::Rejected)
                .and_then(|text| self.text(&text)),
            cells => cells
                .parse(bytes)
                .map_err(Refusal::Rejected)
                .and_then(|cell| self.cell(&cell)),
        };
        self.count(row, 1, outcome)
    }

    fn conversation(&mut self, conversation: Conversation) -> Result<(), StageError> {
        let outcome = match conversation.turns {
            Ok(turns) => self.dialogue(turns),
            Err(Left::Rejected(why)) => Err(Refusal::Rejected(why)),
            Err(Left::Filtered(why)) => Err(Refusal::Filtered(why)),
        };
        self.count(conversation.row, conversation.n_rows, outcome)
    }

    fn record(&mut self, record: &[u8], unit: &Unit, columns: &[String]) -> Result<(), StageError> {
        let n_rows = find::n_swallowed(record);
        // A quote was left open, and one of a later row taken for the one that closes it.
        let is_guess = n_rows > 1 && memchr::memchr_iter(b'"', record).count() % 2 == 1;
        let reason = match csv::row(record, columns) {
            Ok(cell) if !is_guess => {
                let outcome = self.cell(&cell);
                return self.count(unit.row, 1, outcome);
            }
            Err(reason) if n_rows == 1 => reason,
            _ => find::open_quote(n_rows),
        };
        self.lose(Lost {
            row: unit.row,
            n_rows,
            reason,
        });
        Ok(())
    }

    /// Rows of a table: their lengths are not known before they are read.
    fn table(&mut self, rows: &[Cell], first_row: u64) -> Result<(), StageError> {
        let bytes_max = self.recipe.settings.row_bytes_max as usize;
        for (cell, row) in rows.iter().zip(first_row..) {
            let n_bytes = cell.n_bytes();
            if n_bytes > bytes_max {
                self.reject(row, read::too_long(n_bytes, bytes_max));
            } else {
                let outcome = self.cell(cell);
                self.count(row, 1, outcome)?;
            }
        }
        Ok(())
    }

    fn count(
        &mut self,
        row: u64,
        n_rows: u64,
        outcome: Result<(), Refusal>,
    ) -> Result<(), StageError> {
        match outcome {
            Ok(()) => self.tally.rows += n_rows,
            Err(Refusal::Rejected(reason)) => self.lose(Lost {
                row,
                n_rows,
                reason,
            }),
            Err(Refusal::Filtered(reason)) => {
                self.tally.rows += n_rows;
                self.tally.filtered += n_rows;
                self.rejected.push(Rejection {
                    row,
                    reason,
                    is_filtered: true,
                });
            }
            Err(Refusal::Failed(error)) => return Err(error),
        }
        Ok(())
    }

    fn cell(&mut self, cell: &Cell) -> Result<(), Refusal> {
        let said = self.source.shape.read(cell).map_err(Refusal::Rejected)?;
        self.said(said)
    }

    fn text(&mut self, text: &str) -> Result<(), Refusal> {
        let said = self
            .source
            .shape
            .read_text(text)
            .map_err(Refusal::Rejected)?;
        self.said(said)
    }

    fn said(&mut self, said: Said) -> Result<(), Refusal> {
        match said {
            Said::Text(text) => self.raw(text),
            Said::Dialogue(turns) => self.dialogue(turns),
        }
    }

    fn raw(&mut self, text: Cow<str>) -> Result<(), Refusal> {
        let settings = self.recipe.settings;
        let id = digest([(None, &*text)]);
        let text = settings.clean.clean(text);
        check_content(&text).map_err(|why| Refusal::Rejected(format!("the text {why}")))?;
        if let Some(bound) = settings.bounds.broken(None, &[&text]) {
            return Err(Refusal::Filtered(bound));
        }
        self.tally.documents += 1;
        self.tally.content_bytes += text.len() as u64;
        self.rows.push_text(id, id, &self.source.name, &text);
        self.close_if_full()
    }

    fn dialogue(&mut self, turns: Vec<Turn>) -> Result<(), Refusal> {
        let settings = self.recipe.settings;
        if turns.len() > TURNS_MAX {
            let reason = format!("has {} turns, more than {TURNS_MAX}", turns.len());
            return Err(Refusal::Rejected(reason));
        }
        let read = borrowed(&turns);
        let group = digest(read.iter().map(|(role, text)| (Some(*role), *text)));
        // Ids of pairs are of what was read as well, so they are taken before cleaning.
        let ids: Vec<Digest> = match settings.pairs {
            Pairs::Whole => Vec::new(),
            cut => pairs(&read, cut).into_iter().map(pair_id).collect(),
        };
        drop(read);

        let turns = self.cleaned(turns)?;
        let turns = borrowed(&turns);
        let contents: Vec<&str> = spoken(&turns).map(|(_, text)| text).collect();
        if let Some(bound) = settings.bounds.broken(Some(contents.len()), &contents) {
            return Err(Refusal::Filtered(bound));
        }
        if settings.pairs == Pairs::Whole {
            return self.push(group, group, &turns);
        }
        if ids.is_empty() {
            return Err(Refusal::Rejected("has no pair of turns".to_owned()));
        }
        let system: Vec<(Role, &str)> = turns
            .iter()
            .filter(|(role, _)| *role == Role::System)
            .copied()
            .collect();
        for ((prompt, reply), id) in pairs(&turns, settings.pairs).into_iter().zip(ids) {
            let mut turns = system.clone();
            turns.extend([(Role::User, prompt), (Role::Assistant, reply)]);
            self.push(id, group, &turns)?;
        }
        Ok(())
    }

    /// Returns the turns as they will stand, with the system prompt as it is wanted.
    fn cleaned<'t>(&self, turns: Vec<Turn<'t>>) -> Result<Vec<Turn<'t>>, Refusal> {
        let settings = self.recipe.settings;
        let rejected = |why: String| Refusal::Rejected(why);
        let mut cleaned: Vec<Turn> = Vec::with_capacity(turns.len() + 1);
        let (mut has_system, mut has_reply) = (false, false);
        for (idx, (role, text)) in turns.into_iter().enumerate() {
            let text = settings.clean.clean(text);
            if role == Role::System && (text.is_empty() || settings.system == SystemPrompts::Remove)
            {
                continue;
            }
            check_content(&text).map_err(|why| rejected(format!("turn {} {why}", idx + 1)))?;
            has_system |= role == Role::System;
            has_reply |= role == Role::Assistant;
            cleaned.push((role, text));
        }
        if !has_reply {
            return Err(rejected("has no assistant's turn".to_owned()));
        }
        if let (SystemPrompts::Add, false, Some(prompt)) =
            (settings.system, has_system, &settings.system_prompt)
        {
            cleaned.insert(0, (Role::System, Cow::Owned(prompt.clone())));
        }
        Ok(cleaned)
    }

    fn push(&mut self, id: Digest, group: Digest, turns: &[(Role, &str)]) -> Result<(), Refusal> {
        self.tally.documents += 1;
        self.tally.turns += turns.len() as u64;
        self.tally.content_bytes += turns.iter().map(|(_, text)| text.len() as u64).sum::<u64>();
        let turns = turns.iter().copied();
        self.rows.push_dialogue(id, group, &self.source.name, turns);
        self.close_if_full()
    }

    /// A long dialogue cut into pairs is far longer than its row.
    fn close_if_full(&mut self) -> Result<(), Refusal> {
        if self.rows.is_full() {
            self.close().map_err(Refusal::Failed)?;
        }
        Ok(())
    }
}

/// Why a row becomes no document.
enum Refusal {
    /// It cannot be read.
    Rejected(String),
    /// It is not wanted.
    Filtered(String),
    /// Something else is wrong.
    Failed(StageError),
}

pub(super) fn check_content(text: &str) -> Result<(), &'static str> {
    if text.trim().is_empty() {
        return Err("is empty");
    }
    if memchr::memchr(0, text.as_bytes()).is_some() {
        return Err("holds a NUL byte");
    }
    Ok(())
}

fn borrowed<'t>(turns: &'t [Turn<'_>]) -> Vec<(Role, &'t str)> {
    turns.iter().map(|(role, text)| (*role, &**text)).collect()
}

/// Returns the turns that are no system prompts.
fn spoken<'t>(turns: &[(Role, &'t str)]) -> impl Iterator<Item = (Role, &'t str)> {
    turns
        .iter()
        .filter(|(role, _)| *role != Role::System)
        .copied()
}

/// Returns what is asked and what is answered, pair by pair.
fn pairs<'t>(turns: &[(Role, &'t str)], pairs: Pairs) -> Vec<(&'t str, &'t str)> {
    let turns: Vec<(Role, &str)> = spoken(turns).collect();
    let windows = turns.windows(2);
    let wanted = windows.filter(|window| match pairs {
        Pairs::Whole => false,
        Pairs::Sliding => true,
        Pairs::Exchanges => (window[0].0, window[1].0) == (Role::User, Role::Assistant),
    });
    wanted.map(|window| (window[0].1, window[1].1)).collect()
}

fn pair_id((prompt, reply): (&str, &str)) -> Digest {
    digest([(Some(Role::User), prompt), (Some(Role::Assistant), reply)])
}

/// A digest of who said what, and of nothing else. Lengths stand in it, so that no
/// text can be moved from one turn to the next.
fn digest<'t>(turns: impl IntoIterator<Item = (Option<Role>, &'t str)>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for (role, text) in turns {
        let role = role.map_or("text", Role::name);
        hasher.update(&[role.as_bytes()[0]]);
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Returns a piece of a text file with newlines as line ends.
fn text(bytes: &[u8]) -> Result<Cow<'_, str>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| csv::not_utf8(&error))?;
    if text.contains('\r') {
        Ok(Cow::Owned(text.replace("\r\n", "\n")))
    } else {
        Ok(Cow::Borrowed(text))
    }
}
