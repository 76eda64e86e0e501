//! The loss of each document, so that two models can be compared document by document.
//!
//! A document is known by a digest of its contents, decoded: neither its place in the split nor its
//! tokens would do, since another evaluation may read fewer documents and another tokenizer has other
//! tokens. Whitespace does not count, since not every tokenizer keeps it. One that loses letters
//! (`unknown` tokens, lower case) gives other digests, and then nothing is paired rather than wrongly.

use std::{fmt::Write, fs};

use serde::Serialize;
use tinylm_pipeline::{At, StageError, StageIo};

use super::{size::Tags, text::Text};
use crate::shared::{speak::SpeakError, tokens::Tokenizer};

/// A line of `documents.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct DocumentLoss {
    pub(super) digest: String,
    /// Those that are scored.
    pub(super) tokens: u64,
    pub(super) bytes: u64,
    /// The sum over its tokens.
    pub(super) nats: f64,
}

/// 64 bits: among a million documents two share one once in some 37 million evaluations.
const DIGEST_LEN: usize = 16;

pub(super) fn digest(
    tokenizer: &Tokenizer,
    text: &Text,
    tags: &Tags,
) -> Result<String, StageError> {
    let mut hasher = blake3::Hasher::new();
    let are_contents = tags.are_contents(&text.ids).into_iter();
    let places: Vec<(u16, bool)> = text.ids.iter().copied().zip(are_contents).collect();
    for run in places.chunk_by(|left, right| left.1 == right.1) {
        if !run[0].1 {
            continue;
        }
        let ids: Vec<u32> = run.iter().map(|&(id, _)| u32::from(id)).collect();
        let content = tokenizer.decode(&ids).map_err(SpeakError::from)?;
        for word in content.split_whitespace() {
            hasher.update(word.as_bytes());
        }
    }
    Ok(hasher.finalize().to_hex()[..DIGEST_LEN].to_owned())
}

pub(super) fn write(losses: &[DocumentLoss], io: &StageIo) -> Result<(), StageError> {
    let mut lines = String::new();
    for loss in losses {
        let line = serde_json::to_string(loss).expect("numbers and a text are JSON");
        writeln!(lines, "{line}").expect("a string takes all");
    }
    let path = io.out().join("documents.jsonl");
    fs::write(&path, lines).at(&path)
}
