//! Documents that say the same.
//!
//! Keys of a corpus of some millions of documents fit into memory, so that each document
//! can be judged as it comes by and the corpus is read once ([`Seen`]). Those of a larger
//! one are sorted, on disk if need be, and the corpus is read again ([`find`]). What is
//! dropped, and for whom, is the same.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use super::{
    spill::{Sorted, Sorter},
    verdict::{Dropped, Verdict, Why},
    words,
    work::Work,
};
use crate::shared::{
    documents::{Document, Documents, RowGroup, Rows},
    ngrams::compared,
};
use tinylm_pipeline::StageError;
use xxhash_rust::xxh3::xxh3_128;

/// A hash of what is compared (XXH3): two different documents share one about once in 2^64
/// pairs. A digest that withstands forgers costs a sixth of the stage, and who could
/// profit from a forged one could as well repeat the document.
pub(super) type Key = [u32; 4];

/// The memory that a key and its document take in a map, at the worst: it has a power of
/// two of places, and one in eight stays free.
const SEEN_BYTES: u64 = 48;

/// The keys so far, each with the first document that has it.
pub(super) struct Seen(HashMap<Key, u32, BuildHasherDefault<FirstHalf>>);

/// Hashes a key, which is a hash already, by taking half of it.
#[derive(Default)]
struct FirstHalf(u64);

impl Hasher for FirstHalf {
    fn write(&mut self, bytes: &[u8]) {
        let half = bytes.first_chunk().copied().unwrap_or_default();
        self.0 = u64::from_ne_bytes(half);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Seen {
    /// Returns room for a corpus whose keys fit into `memory` bytes.
    pub(super) fn with_room(documents: &Documents, memory: usize) -> Option<Self> {
        let n_documents = documents.n_documents();
        let fits = n_documents * SEEN_BYTES <= memory as u64;
        let n_documents = n_documents as usize;
        fits.then(|| {
            Self(HashMap::with_capacity_and_hasher(
                n_documents,
                Default::default(),
            ))
        })
    }

    /// Adds to the verdicts on the next group those on documents whose key was seen
    /// before. One that is already dropped keeps nobody's place.
    pub(super) fn judge(
        &mut self,
        group: &RowGroup,
        keys: &[Key],
        given: Vec<(usize, Verdict)>,
    ) -> Vec<(usize, Verdict)> {
        let mut given = given.into_iter().peekable();
        let mut verdicts = Vec::new();
        for (row, key) in keys.iter().enumerate() {
            if let Some(verdict) = given.next_if(|(dropped, _)| *dropped == row) {
                verdicts.push(verdict);
                continue;
            }
            let number = group.first_row as u32 + row as u32;
            let kept = *self.0.entry(*key).or_insert(number);
            if kept != number {
                verdicts.push((row, says_the_same(kept)));
            }
        }
        verdicts
    }
}

pub(super) fn says_the_same<K>(kept: K) -> Verdict<K> {
    Verdict {
        why: Why::Exact,
        kept,
        similarity: 1.0,
    }
}

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
    let mut evened = Vec::new();
    rows.iter()
        .map(|document| key(&document, &mut evened))
        .collect()
}

fn key(document: &Document, evened: &mut Vec<u8>) -> Key {
    evened.clear();
    for (role, text) in compared(document) {
        // No text has a line's end in it once it has been evened out.
        evened.extend([b'\n', role]);
        words::even_out(text, evened);
    }
    let hash = xxh3_128(evened);
    [96, 64, 32, 0].map(|shift| (hash >> shift) as u32)
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
        let mut first = FirstOfKey::default();
        while let Some([a, b, c, d, number]) = keys.next()? {
            if dropped.contains(number) {
                continue;
            }
            if let Some(kept) = first.before([a, b, c, d], number) {
                dropped.add(number, says_the_same(kept))?;
            }
        }
        Ok(())
    }
}

/// The first of those that share a key, while documents come by in the order of their keys.
pub(super) struct FirstOfKey<D>(Option<(Key, D)>);

impl<D> Default for FirstOfKey<D> {
    fn default() -> Self {
        Self(None)
    }
}

impl<D: Copy> FirstOfKey<D> {
    /// Returns the first document of this key, unless that is the one that comes by now.
    pub(super) fn before(&mut self, key: Key, document: D) -> Option<D> {
        match self.0 {
            Some((known, first)) if known == key => Some(first),
            _ => {
                self.0 = Some((key, document));
                None
            }
        }
    }
}
