//! Which documents are held back.

use std::mem;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::{Value, json};
use tinylm_pipeline::{
    SettingError, StageError, StageIo,
    settings::{Shape, Shaped},
};

use crate::shared::documents::{Contents, Digest, Document, Documents, Rows};
use crate::shared::encode::{Block, Place};

pub(super) const TRAIN: usize = 0;
pub(super) const VALIDATION: usize = 1;
pub(super) const TEST: usize = 2;
/// The splits by number.
pub(super) const NAMES: [&str; 3] = ["train", "validation", "test"];

/// Documents are handed to threads in blocks of about this many bytes of text.
const BLOCK_BYTES: usize = 1 << 18;

/// How much is held back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Held {
    /// A share of all groups, chosen by their digests.
    Share(f64),
    /// A share of all documents, whatever group they are of: what was cut from one dialogue falls on
    /// both sides, so this measures what was learnt by heart too. It is how some published figures
    /// were taken.
    Documents(f64),
    /// The last part of the text, in the order of the corpus.
    Tail(f64),
}

impl Held {
    pub(super) fn amount(self) -> f64 {
        match self {
            Self::Share(amount) | Self::Documents(amount) | Self::Tail(amount) => amount,
        }
    }

    /// Whether a document is held back, where that goes by its digests and not by its place.
    pub(crate) fn takes(self, group: &Digest, id: &Digest) -> bool {
        match self {
            Self::Share(share) => number(group) < bound(share),
            Self::Documents(share) => number(id) < bound(share),
            Self::Tail(_) => false,
        }
    }
}

impl Shaped for Held {
    fn shape() -> Shape {
        Shape::Own(
            "share, { tail: share } or { documents: share }",
            r#"{ "type": ["number", "object"], "minimum": 0, "exclusiveMaximum": 1, "minProperties": 1, "maxProperties": 1,
                 "properties": { "tail": { "type": ["number", "string"] }, "documents": { "type": ["number", "string"] } },
                 "additionalProperties": false }"#,
        )
    }
}

impl Serialize for Held {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Share(amount) => serializer.serialize_f64(*amount),
            Self::Documents(amount) => json!({"documents": amount}).serialize(serializer),
            Self::Tail(amount) => json!({"tail": amount}).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Held {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if let Some(amount) = value.as_f64() {
            return Ok(Self::Share(amount));
        }
        let map = value.as_object().filter(|map| map.len() == 1);
        let amount = |name| map.and_then(|map| map.get(name)?.as_f64());
        let documents = || amount("documents").map(Self::Documents);
        let expected = "expected a share such as `0.02`, `{ tail: 0.1 }` or `{ documents: 0.02 }`";
        let held = amount("tail").map(Self::Tail).or_else(documents);
        held.ok_or_else(|| D::Error::custom(expected))
    }
}

pub(super) fn check(validation: Option<Held>, test: Option<Held>) -> Result<(), SettingError> {
    let mut sum = 0.0;
    for (name, held) in [("validation", validation), ("test", test)] {
        let amount = held.map_or(0.0, Held::amount);
        if !(0.0..1.0).contains(&amount) {
            return Err(SettingError::new(name, "must be at least 0 and below 1"));
        }
        sum += amount;
    }
    if let (Some(a), Some(b)) = (validation, test)
        && mem::discriminant(&a) != mem::discriminant(&b)
    {
        let message = "must be of the same sort as `validation`: a share, a tail, or documents";
        return Err(SettingError::new("test", message));
    }
    if sum >= 1.0 {
        return Err(SettingError::new("test", "nothing is left for training"));
    }
    Ok(())
}

/// Tells of each document in turn where it belongs.
pub(super) enum Splits {
    Whole(usize),
    /// Groups whose digest, as a number, is below the first bound go to validation, below
    /// the second to test.
    Shares([u64; 2], Unit),
    Tail(Tail),
}

/// Whatever stays on one side of the split.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    Group,
    Document,
}

/// The bytes of contents at which validation and test begin.
pub(super) struct Tail {
    starts: [u64; 2],
    at: u64,
    /// Where the document before went, and its group: what belongs together stays together.
    before: Option<(Digest, usize)>,
}

impl Splits {
    pub(super) fn whole(split: usize) -> Self {
        Self::Whole(split)
    }

    pub(super) fn new(
        validation: Option<Held>,
        test: Option<Held>,
        documents: &Documents,
        io: &StageIo,
    ) -> Result<Self, StageError> {
        let [validation_amount, test_amount] =
            [validation, test].map(|h| h.map_or(0.0, Held::amount));
        match validation.or(test) {
            None => Ok(Self::Whole(TRAIN)),
            Some(held @ (Held::Share(_) | Held::Documents(_))) => {
                let bounds = [validation_amount, validation_amount + test_amount].map(bound);
                let unit = match held {
                    Held::Documents(_) => Unit::Document,
                    _ => Unit::Group,
                };
                Ok(Self::Shares(bounds, unit))
            }
            Some(Held::Tail(_)) => {
                let total = content_bytes(documents, io)? as f64;
                let tail = |amount: f64| (total * (1.0 - amount)) as u64;
                Ok(Self::Tail(Tail {
                    starts: [tail(validation_amount + test_amount), tail(test_amount)],
                    at: 0,
                    before: None,
                }))
            }
        }
    }

    /// Appends the documents of a row group as blocks for the threads.
    pub(super) fn cut_into_blocks<'a>(&mut self, rows: &'a Rows, blocks: &mut Vec<Block<'a>>) {
        let mut block = Block::default();
        let mut n_bytes = 0;
        for document in rows.iter() {
            n_bytes += document.contents.n_bytes();
            self.place(document, &mut block.documents);
            if n_bytes >= BLOCK_BYTES {
                blocks.push(std::mem::take(&mut block));
                n_bytes = 0;
            }
        }
        if !block.documents.is_empty() {
            blocks.push(block);
        }
    }

    fn place<'a>(&mut self, document: Document<'a>, placed: &mut Vec<Place<'a>>) {
        match self {
            Self::Whole(split) => placed.push(Place::whole(document, *split)),
            Self::Shares(bounds, unit) => {
                let number = number(match unit {
                    Unit::Group => &document.group,
                    Unit::Document => &document.id,
                });
                let split = match bounds.iter().position(|bound| number < *bound) {
                    Some(0) => VALIDATION,
                    Some(_) => TEST,
                    None => TRAIN,
                };
                placed.push(Place::whole(document, split));
            }
            Self::Tail(tail) => tail.place(document, placed),
        }
    }
}

/// The number below which a share of all digests are.
fn bound(share: f64) -> u64 {
    (share * u64::MAX as f64) as u64
}

/// The middle of a digest as a number. Not its beginning, by which samples are drawn.
fn number(digest: &Digest) -> u64 {
    let [_, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h, ..] = *digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

impl Tail {
    fn split_at(&self, at: u64) -> usize {
        self.starts.iter().filter(|start| at >= **start).count()
    }

    fn place<'a>(&mut self, document: Document<'a>, placed: &mut Vec<Place<'a>>) {
        let start = self.at;
        self.at += document.contents.n_bytes() as u64;
        let Contents::Text(mut rest) = document.contents else {
            let with_before = self.before.filter(|(group, _)| *group == document.group);
            let split = with_before.map_or_else(|| self.split_at(start), |(_, split)| split);
            self.before = Some((document.group, split));
            placed.push(Place::whole(document, split));
            return;
        };
        // A raw text is cut where a part begins, at the start of a line or a word.
        let part = |text| Document {
            contents: Contents::Text(text),
            ..document
        };
        let mut from = start;
        for (idx, split_start) in self.starts.into_iter().enumerate() {
            let inside = split_start > from && split_start < from + rest.len() as u64;
            if !inside {
                continue;
            }
            let cut = cut_near(rest, (split_start - from) as usize);
            let (before, after) = rest.split_at(cut);
            if before.is_empty() || after.is_empty() {
                continue;
            }
            placed.push(Place::cut(part(before), idx));
            from += cut as u64;
            rest = after;
        }
        let split = self.split_at(from.max(start));
        placed.push(Place::whole(part(rest), split));
    }
}

/// Returns the first start of a line at or behind `at`, or of a word if none is near.
fn cut_near(text: &str, at: usize) -> usize {
    const NEAR: usize = 4096;
    let at = text.ceil_char_boundary(at);
    let near = &text[at..text.ceil_char_boundary((at + NEAR).min(text.len()))];
    if at == 0 || text[..at].ends_with('\n') {
        return at;
    }
    match near.find('\n').or_else(|| near.find(' ')) {
        Some(found) => at + found + 1,
        None => at,
    }
}

fn content_bytes(documents: &Documents, io: &StageIo) -> Result<u64, StageError> {
    let mut total = 0;
    let mut done = 0;
    for group in documents.row_groups() {
        total += group.read()?.n_bytes() as u64;
        done += group.n_rows as u64;
        let note = Some("measuring");
        io.progress_note(done, Some(documents.n_documents()), "documents", note)?;
    }
    Ok(total)
}
