//! Rows, laid out once: the pieces of documents, and which of them share a row.

use std::collections::BTreeSet;

use serde::Serialize;

use super::settings::{BatchError, BatchSettings, LongDocuments, LossOn};
use crate::shards::{Document, Split};

/// The fate of the documents, for the log and for `training.json`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Coverage {
    pub documents: u64,
    /// Documents of a single token, which predict nothing.
    pub documents_too_short: u64,
    /// Documents longer than the context.
    pub documents_long: u64,
    /// Tokens that cropping left out.
    pub tokens_cropped: u64,
    /// Pieces without any token that counts in the loss, left out.
    pub pieces_without_target: u64,
    pub rows: u64,
    /// Places in use, of `rows * context`.
    pub places: u64,
}

/// Places `start..start + len` of the stream, each predicting the token after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) start: u64,
    pub(super) len: u32,
}

#[derive(Debug)]
pub(super) enum Rows {
    /// Row `i` is `pieces[ends[i - 1]..ends[i]]`.
    Packed { pieces: Vec<Piece>, ends: Vec<u32> },
    /// Row `i` starts at token `i * stride`, or early enough to be full.
    Sliding { n_rows: usize, stride: u64 },
    /// Row `i` of an epoch starts anywhere.
    Windows { n_rows: usize },
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Packed { ends, .. } => ends.len(),
            Self::Sliding { n_rows, .. } | Self::Windows { n_rows } => *n_rows,
        }
    }
}

/// A stream is read without cutting documents out of it, so only its whole can be useless.
pub(super) fn check_stream(split: &Split, settings: &BatchSettings) -> Result<(), BatchError> {
    let mut documents = split.documents().iter();
    if documents.all(|document| document.len < 2) {
        return Err(BatchError::NothingToPredict);
    }
    let mut documents = split.documents().iter();
    let counts =
        documents.any(|document| counts(split, document.start, document.len - 1, settings.loss_on));
    if counts {
        Ok(())
    } else {
        Err(BatchError::AllMasked)
    }
}

/// The pieces of all documents that count, in document order.
pub(super) fn cut(
    split: &Split,
    settings: &BatchSettings,
    coverage: &mut Coverage,
) -> Result<Vec<Piece>, BatchError> {
    let context = settings.context as u32;
    let mut pieces = Vec::with_capacity(split.documents().len());
    for document in split.documents() {
        let n_places = document.len - 1;
        coverage.documents_too_short += u64::from(n_places == 0);
        coverage.documents_long += u64::from(n_places > context);
        let n_kept = match settings.long_documents {
            LongDocuments::Split => n_places,
            LongDocuments::Crop => n_places.min(context),
        };
        coverage.tokens_cropped += u64::from(n_places - n_kept);
        for from in (0..n_kept).step_by(context as usize) {
            let start = document.start + u64::from(from);
            let len = context.min(n_kept - from);
            if counts(split, start, len, settings.loss_on) {
                pieces.push(Piece { start, len });
            } else {
                coverage.pieces_without_target += 1;
            }
        }
    }
    match pieces.is_empty() {
        false => Ok(pieces),
        true if coverage.pieces_without_target > 0 => Err(BatchError::AllMasked),
        true => Err(BatchError::NothingToPredict),
    }
}

/// Pairs of documents as rows. A pair of which one is longer than the context is left out: without
/// the end of an answer nothing can be said of it.
pub(super) fn pairs(
    split: &Split,
    settings: &BatchSettings,
    coverage: &mut Coverage,
) -> Result<Rows, BatchError> {
    let mut pieces = Vec::with_capacity(split.documents().len());
    for pair in split.documents().chunks_exact(2) {
        let is_long = |document: &Document| document.len as usize > settings.context + 1;
        let is_short = |document: &Document| document.len < 2;
        if pair.iter().any(is_short) {
            coverage.documents_too_short += 2;
            continue;
        }
        if pair.iter().any(is_long) {
            coverage.documents_long += 2;
            coverage.tokens_cropped += pair.iter().map(|d| u64::from(d.len)).sum::<u64>();
            continue;
        }
        let piece = |document: &Document| Piece {
            start: document.start,
            len: document.len - 1,
        };
        pieces.extend(pair.iter().map(piece));
    }
    if pieces.is_empty() {
        return Err(BatchError::LongPairs(settings.context));
    }
    Ok(Rows::Packed {
        ends: (2..=pieces.len() as u32).step_by(2).collect(),
        pieces,
    })
}

/// Whether any of the `len` places at `start` predicts a token that counts.
fn counts(split: &Split, start: u64, len: u32, loss_on: LossOn) -> bool {
    let stretch = split.stretch(start, len as usize + 1);
    len > 0 && (loss_on == LossOn::All || (1..stretch.len()).any(|idx| stretch.is_target(idx)))
}

/// Puts each piece into the fullest row that still has room for it.
pub(super) fn best_fit(pieces: &[Piece], context: usize) -> Rows {
    let mut rows: Vec<Vec<u32>> = Vec::new();
    // Rows by how much room they have; a set of the sizes in use finds the least that fits.
    let mut with_room: Vec<Vec<usize>> = vec![Vec::new(); context + 1];
    let mut rooms: BTreeSet<usize> = BTreeSet::new();
    for (piece_idx, piece) in pieces.iter().enumerate() {
        let len = piece.len as usize;
        let (row, room) = match rooms.range(len..).next().copied() {
            Some(room) => {
                let row = with_room[room].pop().unwrap_or_default();
                if with_room[room].is_empty() {
                    rooms.remove(&room);
                }
                (row, room)
            }
            None => {
                rows.push(Vec::new());
                (rows.len() - 1, context)
            }
        };
        rows[row].push(piece_idx as u32);
        if room > len {
            with_room[room - len].push(row);
            rooms.insert(room - len);
        }
    }
    let in_rows = rows.iter().flatten();
    let mut end = 0;
    Rows::Packed {
        pieces: in_rows.map(|&idx| pieces[idx as usize]).collect(),
        ends: rows
            .iter()
            .map(|row| {
                end += row.len() as u32;
                end
            })
            .collect(),
    }
}

/// Windows needed so that every token of the stream stands in one.
pub(super) fn n_sliding(n_tokens: u64, context: usize, stride: usize) -> usize {
    let past_first = (n_tokens as usize).saturating_sub(context + 1);
    1 + past_first.div_ceil(stride)
}
