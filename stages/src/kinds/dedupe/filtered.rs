//! A row group without those of its documents that are dropped.

use tinylm_pipeline::StageError;

use super::verdict::Verdict;
use crate::shared::documents::{Digest, Encoded, Encoder, Rows};

/// The rest of a row group.
pub(super) struct Filtered<K> {
    pub(super) encoded: Encoded,
    /// The ids of all its documents.
    pub(super) ids: Vec<Digest>,
    pub(super) verdicts: Vec<(usize, Verdict<K>)>,
}

pub(super) fn filter<K>(
    rows: Rows,
    verdicts: Vec<(usize, Verdict<K>)>,
    encoder: &Encoder,
) -> Result<Filtered<K>, StageError> {
    let ids = rows.iter().map(|document| document.id).collect();
    let kept = match verdicts.is_empty() {
        true => rows,
        false => without(&rows, &verdicts),
    };
    Ok(Filtered {
        encoded: encoder.encode(kept)?,
        ids,
        verdicts,
    })
}

fn without<K>(rows: &Rows, verdicts: &[(usize, Verdict<K>)]) -> Rows {
    let mut kept = Rows::default();
    kept.reserve_for(rows);
    let mut dropped = verdicts.iter().map(|(row, _)| *row).peekable();
    for (row, document) in rows.iter().enumerate() {
        match dropped.next_if_eq(&row) {
            Some(_) => {}
            None => kept.push(&document),
        }
    }
    kept
}
