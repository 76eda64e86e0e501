//! The names of parts: digests of what is in their files.
//!
//! An artifact of several parts numbers them in its own order and has a list of their names beside it, so that
//! whoever reads it need not count them in the same way. Two parts of one name are two copies of the same
//! files; where several stand in one list, all of them do.

use std::{collections::HashMap, fs, path::Path};

use tinylm_pipeline::{At, StageError, parts::Digest};

const NAMES: &str = "names";

pub(super) fn write(folder: &Path, names: &[Digest]) -> Result<(), StageError> {
    let path = folder.join(NAMES);
    let bytes: Vec<u8> = names.iter().flat_map(|name| *name.as_bytes()).collect();
    fs::write(&path, bytes).at(&path)
}

pub(super) fn read(folder: &Path) -> Result<Vec<Digest>, StageError> {
    let path = folder.join(NAMES);
    let bytes = fs::read(&path).at(&path)?;
    let (names, _) = bytes.as_chunks();
    Ok(names.iter().map(|name| Digest::from_bytes(*name)).collect())
}

/// The places of parts in one list, by name.
pub(super) struct Places(HashMap<Digest, Vec<u32>>);

impl Places {
    pub(super) fn of(names: &[Digest]) -> Self {
        let mut places: HashMap<Digest, Vec<u32>> = HashMap::new();
        for (place, name) in (0..).zip(names) {
            places.entry(*name).or_default().push(place);
        }
        Self(places)
    }

    /// Returns the place of the first part of a name. Whatever a later copy says has been said before, so
    /// that nothing is ever compared with one.
    pub(super) fn first(&self, name: &Digest) -> Option<u32> {
        self.0.get(name)?.first().copied()
    }

    /// Returns the place of each part of another list, copy by copy.
    pub(super) fn of_others(&self, others: &[Digest]) -> Vec<Option<u32>> {
        let mut n_copies: HashMap<&Digest, usize> = HashMap::new();
        let place = |name| {
            let n = n_copies.entry(name).or_default();
            *n += 1;
            self.0.get(name)?.get(*n - 1).copied()
        };
        others.iter().map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_a_part_are_matched_in_order() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|name| Digest::of_bytes(name));
        let places = Places::of(&[a, b, a, c]);
        assert_eq!(places.first(&a), Some(0));
        let others = places.of_others(&[Digest::of_bytes(b"d"), a, a, c]);
        assert_eq!(others, [None, Some(0), Some(2), Some(3)]);
    }
}
