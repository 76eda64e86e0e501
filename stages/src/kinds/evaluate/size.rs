//! How much was written in what is scored: bytes and words of contents, tags left out.

use std::collections::BTreeSet;

use tinylm_pipeline::StageError;

use super::text::{Scored, Text};
use crate::shared::{
    speak::SpeakError,
    template::{Piece, Role, What},
    tokens::{Tokenizer, TokensError},
};

/// How much was written in the contents that are scored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) n_bytes: u64,
    pub(super) n_words: u64,
}

/// Of a text that is scored from its second token on, the size is that of the whole, its
/// first token included; its bytes are known. Those of a part are the bytes it decodes to.
pub(super) fn size(
    tokenizer: &Tokenizer,
    text: &Text,
    tags: &Tags,
    scored: Scored,
) -> Result<Size, StageError> {
    let is_whole = (1..text.ids.len()).all(|place| text.is_scored(place, scored));
    let mut counts = tags.are_contents(&text.ids);
    for (place, counts) in counts.iter_mut().enumerate() {
        *counts &= is_whole || text.is_scored(place, scored);
    }
    let mut size = Size::default();
    let places: Vec<(u16, bool)> = text.ids.iter().copied().zip(counts).collect();
    for run in places.chunk_by(|left, right| left.1 == right.1) {
        if !run[0].1 {
            continue;
        }
        let ids: Vec<u32> = run.iter().map(|&(id, _)| u32::from(id)).collect();
        let content = tokenizer.decode(&ids).map_err(SpeakError::from)?;
        size.n_bytes += content.len() as u64;
        size.n_words += content.split_whitespace().count() as u64;
    }
    if is_whole {
        size.n_bytes = text.n_bytes;
    }
    Ok(size)
}

/// The ids that stand between contents.
pub(super) struct Tags {
    /// Special tokens: no content has one.
    marks: BTreeSet<u16>,
    /// A mark and ordinary text behind it (`<|im_start|>user`), which therefore cannot be
    /// taken for a content either.
    pairs: Vec<Vec<u16>>,
}

impl Tags {
    pub(super) fn of(tokenizer: &Tokenizer) -> Result<Tags, TokensError> {
        let specials = tokenizer.specials().values().copied();
        let marks = specials.filter(|&id| Some(id) != tokenizer.unknown_id());
        let turns = Role::ALL.map(|role| (role, ""));
        let pieces = tokenizer.form().pieces(turns, tokenizer.spacing());
        let mut pairs = Vec::new();
        for pair in pieces.windows(2) {
            if !matches!((pair[0].what, pair[1].what), (What::Special(_), What::Tag)) {
                continue;
            }
            let mut ids = Vec::new();
            let take = |_: &Piece, some: &[u32]| ids.extend_from_slice(some);
            tokenizer.encoder().pieces(pair, take)?;
            pairs.push(narrow(ids).collect());
        }
        Ok(Tags {
            marks: narrow(marks).collect(),
            pairs,
        })
    }

    /// Whether each of a document's tokens is of a content.
    pub(super) fn are_contents(&self, ids: &[u16]) -> Vec<bool> {
        let mut are_contents = vec![true; ids.len()];
        for at in 0..ids.len() {
            if self.marks.contains(&ids[at]) {
                let pair = self.pairs.iter().find(|pair| ids[at..].starts_with(pair));
                let n = pair.map_or(1, Vec::len);
                are_contents[at..at + n].fill(false);
            }
        }
        are_contents
    }
}

/// A tokenizer with an id above 16 bits cannot be loaded.
fn narrow(ids: impl IntoIterator<Item = u32>) -> impl Iterator<Item = u16> {
    ids.into_iter().filter_map(|id| u16::try_from(id).ok())
}
