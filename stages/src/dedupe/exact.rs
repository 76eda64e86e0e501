//! Documents that say the same.

use super::{
    Dropped, Verdict, Why, Work,
    spill::{Sorted, Sorter},
    words,
};
use crate::documents::{Document, Documents, RowGroup, Rows};
use tinylm_pipeline::StageError;

/// The first half of a digest: two different documents share one about once in 2^64 pairs.
pub(super) type Key = [u32; 4];

/// Finds documents whose key an earlier one has.
pub(super) fn find(
    documents: &Documents,
    work: &Work,
    dropped: &mut Dropped,
) -> Result<(), StageError> {
    let mut keys = Keys::new(work.sorter("keys", 1, 2));
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
    let digest = blake3::hash(evened.as_bytes());
    let (words, _) = digest.as_bytes().as_chunks();
    [0, 1, 2, 3].map(|idx| u32::from_be_bytes(words[idx]))
}

/// The keys of all documents so far, each with its document's number.
pub(super) struct Keys<'a> {
    sorter: Sorter<'a, 5>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(sorter: Sorter<'a, 5>) -> Self {
        Self { sorter }
    }

    pub(super) fn add(&mut self, group: &RowGroup, keys: &[Key]) -> Result<(), StageError> {
        for (number, &[a, b, c, d]) in (group.first_row as u32..).zip(keys) {
            self.sorter.push([a, b, c, d, number])?;
        }
        Ok(())
    }

    /// Drops all but the first of those that share a key. One that is already dropped
    /// keeps nobody's place.
    pub(super) fn resolve(self, dropped: &mut Dropped) -> Result<(), StageError> {
        let keys: Sorted<5> = self.sorter.sorted();
        let mut keys = keys.reader()?;
        let mut first: Option<(Key, u32)> = None;
        while let Some([a, b, c, d, number]) = keys.next()? {
            if dropped.contains(number) {
                continue;
            }
            let key = [a, b, c, d];
            match first {
                Some((known, kept)) if known == key => {
                    let verdict = Verdict {
                        why: Why::Exact,
                        kept,
                        similarity: 1.0,
                    };
                    dropped.add(number, verdict)?;
                }
                _ => first = Some((key, number)),
            }
        }
        Ok(())
    }
}
