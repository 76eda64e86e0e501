//! Documents that say the same.

use super::{Dropped, Verdict, Why, Work, spill::Buckets, words};
use crate::documents::{Document, Documents, RowGroup, Rows};
use tinylm_pipeline::StageError;

/// The first half of a digest: two different documents share one about once in 2^64 pairs.
pub(super) type Key = [u8; 16];

/// A key and a document's number, big-endian, so that bytes sort as numbers do.
const LEN: usize = 20;

/// Finds documents whose key an earlier one has.
pub(super) fn find(
    documents: &Documents,
    work: &Work,
    dropped: &mut Dropped,
) -> Result<(), StageError> {
    let mut keys = Keys::new(documents, work);
    work.each_group(
        documents,
        "comparing",
        |_, rows| Ok(keys_of(&rows)),
        |group, found| keys.add(group, &found),
    )?;
    keys.resolve(dropped)
}

/// Returns the keys of a group's documents.
pub(super) fn keys_of(rows: &Rows) -> Vec<Key> {
    let mut evened = String::new();
    rows.iter()
        .map(|document| key(&document, &mut evened))
        .collect()
}

fn key(document: &Document, evened: &mut String) -> Key {
    evened.clear();
    for (role, text) in words::compared(document) {
        // No text has a line's end in it once it has been evened out.
        evened.push('\n');
        evened.push(char::from(role));
        words::even_out(text, evened);
    }
    let mut key = Key::default();
    key.copy_from_slice(&blake3::hash(evened.as_bytes()).as_bytes()[..16]);
    key
}

/// The keys of all documents so far.
pub(super) struct Keys {
    buckets: Buckets<LEN>,
}

impl Keys {
    pub(super) fn new(documents: &Documents, work: &Work) -> Self {
        let n_documents = documents.n_documents();
        let memory = work.memory() / 2;
        Self {
            buckets: Buckets::new(work.scratch.path(), "keys", n_documents, memory),
        }
    }

    pub(super) fn add(&mut self, group: &RowGroup, keys: &[Key]) -> Result<(), StageError> {
        for (number, key) in (group.first_row as u32..).zip(keys) {
            let mut record = [0; LEN];
            record[..16].copy_from_slice(key);
            record[16..].copy_from_slice(&number.to_be_bytes());
            let [a, b, c, d, e, f, g, h, ..] = *key;
            let bucket = self
                .buckets
                .bucket_of(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
            self.buckets.push(bucket, record)?;
        }
        Ok(())
    }

    /// Drops all but the first of those that share a key. One that is already dropped
    /// keeps nobody's place.
    pub(super) fn resolve(mut self, dropped: &mut Dropped) -> Result<(), StageError> {
        for bucket in 0..self.buckets.len() {
            let mut records = self.buckets.take(bucket)?;
            records.sort_unstable();
            for same in records.chunk_by(|a, b| a[..16] == b[..16]) {
                let mut numbers = same.iter().map(number).filter(|n| !dropped.contains(*n));
                let Some(kept) = numbers.next() else {
                    continue;
                };
                let repeated: Vec<u32> = numbers.collect();
                for number in repeated {
                    let verdict = Verdict {
                        why: Why::Exact,
                        kept,
                        similarity: 1.0,
                    };
                    dropped.add(number, verdict);
                }
            }
        }
        Ok(())
    }
}

fn number(record: &[u8; LEN]) -> u32 {
    let [.., a, b, c, d] = *record;
    u32::from_be_bytes([a, b, c, d])
}
