//! Records of several parts in one file, sliced by part, with a digest of each slice.
//!
//! A record may name another part by its number, which means something beside this file only. In the digest of
//! a slice the part's name stands for it, so that the digest says the same in any corpus that the part is in.

use std::{
    iter,
    path::{Path, PathBuf},
};

use tinylm_pipeline::{StageError, parts::Digest};

use super::super::{
    records::{Records, RecordsWriter},
    spill::BUFFER_BYTES,
};

/// What a slice is of: a part, and within that a bucket or whatever its writer likes.
pub(super) type Of = (u32, u32);

/// Number of the part, what of it, how many records in two halves, digest.
const ENTRY_LEN: usize = 12;

#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    pub(super) of: Of,
    first: u64,
    n_records: u64,
    pub(super) digest: Digest,
}

/// Writes records of `N` numbers, of which the one at `NAMED` is a part's; none is if there is no such place.
pub(super) struct SlicedWriter<const N: usize, const NAMED: usize> {
    records: RecordsWriter<N>,
    index: RecordsWriter<ENTRY_LEN>,
    begun: Option<Begun>,
}

struct Begun {
    of: Of,
    n_records: u64,
    hasher: blake3::Hasher,
}

fn paths(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    (folder.join(name), folder.join(format!("{name}-index")))
}

impl<const N: usize, const NAMED: usize> SlicedWriter<N, NAMED> {
    pub(super) fn create(folder: &Path, name: &str) -> Result<Self, StageError> {
        let (records, index) = paths(folder, name);
        Ok(Self {
            records: RecordsWriter::create(&records, BUFFER_BYTES)?,
            index: RecordsWriter::create(&index, BUFFER_BYTES)?,
            begun: None,
        })
    }

    /// Appends to the slice `of`; slices come in order. `name` is what the record's part is called, or whatever
    /// else its numbers mean.
    pub(super) fn push(
        &mut self,
        of: Of,
        record: [u32; N],
        name: Option<&[u8; 32]>,
    ) -> Result<(), StageError> {
        if self.begun.as_ref().is_none_or(|begun| begun.of != of) {
            self.close()?;
            self.begun = Some(Begun {
                of,
                n_records: 0,
                hasher: blake3::Hasher::new(),
            });
        }
        if let Some(begun) = &mut self.begun {
            begun.n_records += 1;
            for (place, number) in record.iter().enumerate() {
                if place != NAMED {
                    begun.hasher.update(&number.to_le_bytes());
                }
            }
            begun.hasher.update(name.map_or(&[], |name| name));
        }
        self.records.push(record)
    }

    pub(super) fn finish(mut self) -> Result<(), StageError> {
        self.close()?;
        self.index.finish()?;
        self.records.finish()
    }

    fn close(&mut self) -> Result<(), StageError> {
        let Some(begun) = self.begun.take() else {
            return Ok(());
        };
        let mut entry = [0; ENTRY_LEN];
        (entry[0], entry[1]) = begun.of;
        (entry[2], entry[3]) = (begun.n_records as u32, (begun.n_records >> 32) as u32);
        entry[4..].copy_from_slice(&words(begun.hasher.finalize().as_bytes()));
        self.index.push(entry)
    }
}

/// A file of sliced records that is there. What is held of it is the index.
pub(super) struct Sliced<const N: usize> {
    path: PathBuf,
    slices: Vec<Slice>,
}

impl<const N: usize> Sliced<N> {
    pub(super) fn open(folder: &Path, name: &str) -> Result<Self, StageError> {
        let (path, index) = paths(folder, name);
        let mut entries = Records::<ENTRY_LEN>::open_all(&index, BUFFER_BYTES)?;
        let mut slices = Vec::new();
        let mut first = 0;
        while let Some([part, of, low, high, digest @ ..]) = entries.next()? {
            let n_records = u64::from(high) << 32 | u64::from(low);
            slices.push(Slice {
                of: (part, of),
                first,
                n_records,
                digest: Digest::from_bytes(bytes(&digest)),
            });
            first += n_records;
        }
        Ok(Self { path, slices })
    }

    pub(super) fn slices(&self) -> &[Slice] {
        &self.slices
    }

    /// Returns the slices of a part.
    pub(super) fn of_part(&self, part: u32) -> &[Slice] {
        let start = self.slices.partition_point(|slice| slice.of.0 < part);
        let end = self.slices.partition_point(|slice| slice.of.0 <= part);
        &self.slices[start..end]
    }

    /// Opens slices that stand one behind the other.
    pub(super) fn read(&self, slices: &[Slice]) -> Result<Records<N>, StageError> {
        let start = slices.first().map_or(0, |slice| slice.first);
        let n_records: u64 = slices.iter().map(|slice| slice.n_records).sum();
        Records::open(&self.path, BUFFER_BYTES, start..start + n_records)
    }
}

/// Returns a digest as numbers of four bytes.
pub(super) fn words(digest: &[u8; 32]) -> [u32; 8] {
    let (words, _) = digest.as_chunks();
    std::array::from_fn(|idx| u32::from_le_bytes(words[idx]))
}

/// Returns the digest that these numbers are.
pub(super) fn bytes(words: &[u32; 8]) -> [u8; 32] {
    let mut digest = [0; 32];
    let bytes = words.iter().flat_map(|word| word.to_le_bytes());
    iter::zip(&mut digest, bytes).for_each(|(to, byte)| *to = byte);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digests of the slices of two parts that name a third one.
    fn digests(third: u32, name: &[u8; 32], row: u32) -> Vec<Digest> {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = SlicedWriter::<2, 1>::create(dir.path(), "records").unwrap();
        writer.push((0, 7), [row, third], Some(name)).unwrap();
        writer.push((2, 0), [5, third], Some(name)).unwrap();
        writer.push((2, 0), [6, third], Some(name)).unwrap();
        writer.push((2, 1), [7, third], Some(name)).unwrap();
        writer.finish().unwrap();
        let sliced = Sliced::<2>::open(dir.path(), "records").unwrap();
        assert!(sliced.of_part(1).is_empty());
        let mut records = sliced.read(sliced.of_part(2)).unwrap();
        let rows = iter::from_fn(|| records.next().unwrap());
        assert!(rows.eq([[5, third], [6, third], [7, third]]));
        sliced.slices().iter().map(|slice| slice.digest).collect()
    }

    #[test]
    fn a_slice_is_known_by_what_it_says_and_not_by_the_numbers_of_parts() {
        let before = digests(9, &[1; 32], 3);
        assert_eq!(digests(4, &[1; 32], 3), before);
        assert_ne!(digests(9, &[2; 32], 3)[2], before[2]);
        let other_row = digests(9, &[1; 32], 4);
        assert_ne!(other_row[0], before[0]);
        assert_eq!(other_row[1..], before[1..]);
    }

    #[test]
    fn a_digest_survives_being_numbers() {
        let digest = *blake3::hash(b"anything").as_bytes();
        assert_eq!(bytes(&words(&digest)), digest);
    }
}
