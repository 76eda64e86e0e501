//! The memory of a comparison over a corpus, bounded.
//!
//! A [`Sorter`] holds records until they fill its share of the memory, then sorts them and
//! writes them to disk as a run; reading merges the runs with what is still held. So
//! records come out in order, and neither how many there are nor how alike they are makes
//! a difference to the memory, as it would with buckets. A [`Table`] is a file of records
//! that are found by number.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use rayon::slice::ParallelSliceMut;
use tinylm_pipeline::{At, StageError};

use super::records::{Records, RecordsWriter};

/// So many runs are merged into one, which bounds the files that are open at once.
const RUNS_MAX: usize = 64;
/// The buffer of a file, where the memory allows that much.
pub(super) const BUFFER_BYTES: usize = 1 << 18;
const BUFFER_BYTES_MIN: usize = 1 << 12;
/// A reader looks after so many records whether it should stop.
const STOP_EVERY: u32 = 1 << 16;

/// Takes records in any order.
pub(super) struct Sorter<'a, const N: usize> {
    files: Files<'a>,
    /// Records held at most.
    n_held_max: usize,
    held: Vec<[u32; N]>,
    /// Runs by how often their records have been merged.
    levels: Vec<Vec<Run>>,
}

/// Where runs are written and how much memory reading them may take.
struct Files<'a> {
    folder: &'a Path,
    name: &'static str,
    n_made: usize,
    memory: usize,
    cancel: &'a AtomicBool,
}

/// Sorted records in a file, which goes with it.
struct Run {
    path: PathBuf,
    n_records: u64,
}

impl Drop for Run {
    fn drop(&mut self) {
        // Left over, it goes with the folder.
        fs::remove_file(&self.path).ok();
    }
}

impl<'a, const N: usize> Sorter<'a, N> {
    /// A sorter that takes about `memory` bytes, and `folder` for what is more.
    pub(super) fn new(
        folder: &'a Path,
        name: &'static str,
        memory: usize,
        cancel: &'a AtomicBool,
    ) -> Self {
        let for_files = memory / 4;
        Self {
            files: Files {
                folder,
                name,
                n_made: 0,
                memory: for_files,
                cancel,
            },
            n_held_max: ((memory - for_files) / size_of::<[u32; N]>()).max(1),
            held: Vec::new(),
            levels: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, record: [u32; N]) -> Result<(), StageError> {
        if self.held.len() == self.n_held_max {
            self.spill()?;
        }
        self.held.push(record);
        Ok(())
    }

    /// Returns all records in order.
    pub(super) fn sorted(mut self) -> Sorted<'a, N> {
        self.held.par_sort_unstable();
        Sorted {
            files: self.files,
            held: self.held,
            runs: self.levels.into_iter().flatten().collect(),
        }
    }

    fn spill(&mut self) -> Result<(), StageError> {
        self.held.par_sort_unstable();
        let mut held = self.held.iter();
        let mut run = self.files.write(|| Ok(held.next().copied()))?;
        self.held.clear();
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            self.levels[level].push(run);
            if self.levels[level].len() < RUNS_MAX {
                break;
            }
            let runs = std::mem::take(&mut self.levels[level]);
            let mut merged = Reader::<N>::new(&self.files, &[], &runs)?;
            run = self.files.write(|| merged.next())?;
        }
        Ok(())
    }
}

impl Files<'_> {
    fn buffer_bytes(&self, n_files: usize) -> usize {
        (self.memory / n_files.max(1)).clamp(BUFFER_BYTES_MIN, BUFFER_BYTES)
    }

    fn write<const N: usize>(
        &mut self,
        mut next: impl FnMut() -> Result<Option<[u32; N]>, StageError>,
    ) -> Result<Run, StageError> {
        let path = self.folder.join(format!("{}-{}", self.name, self.n_made));
        self.n_made += 1;
        let mut file = RecordsWriter::create(&path, self.buffer_bytes(1))?;
        let mut run = Run { path, n_records: 0 };
        while let Some(record) = next()? {
            file.push(record)?;
            run.n_records += 1;
        }
        file.finish()?;
        Ok(run)
    }
}

/// Records in order, to be read as often as needed.
pub(super) struct Sorted<'a, const N: usize> {
    files: Files<'a>,
    held: Vec<[u32; N]>,
    runs: Vec<Run>,
}

impl<const N: usize> Sorted<'_, N> {
    pub(super) fn reader(&self) -> Result<Reader<'_, N>, StageError> {
        Reader::new(&self.files, &self.held, &self.runs)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.runs.is_empty()
    }
}

/// Merges sorted runs; also where work that should stop does.
pub(super) struct Reader<'a, const N: usize> {
    held: std::slice::Iter<'a, [u32; N]>,
    runs: Vec<Records<N>>,
    /// The next record of each run, and of what is held behind the last one.
    heads: BinaryHeap<Reverse<([u32; N], usize)>>,
    cancel: &'a AtomicBool,
    n_until_look: u32,
}

impl<'a, const N: usize> Reader<'a, N> {
    fn new(files: &Files<'a>, held: &'a [[u32; N]], runs: &'a [Run]) -> Result<Self, StageError> {
        let n_bytes = files.buffer_bytes(runs.len());
        let open = |run: &Run| Records::open(&run.path, n_bytes, 0..run.n_records);
        let mut this = Self {
            held: held.iter(),
            runs: runs.iter().map(open).collect::<Result<_, StageError>>()?,
            heads: BinaryHeap::new(),
            cancel: files.cancel,
            n_until_look: 0,
        };
        if !this.runs.is_empty() {
            for idx in 0..=this.runs.len() {
                let head = this.head(idx)?;
                this.heads.extend(head.map(|record| Reverse((record, idx))));
            }
        }
        Ok(this)
    }

    fn head(&mut self, idx: usize) -> Result<Option<[u32; N]>, StageError> {
        match self.runs.get_mut(idx) {
            Some(run) => run.next(),
            None => Ok(self.held.next().copied()),
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<[u32; N]>, StageError> {
        if self.n_until_look == 0 {
            self.n_until_look = STOP_EVERY;
            if self.cancel.load(Ordering::Relaxed) {
                return Err(StageError::cancelled());
            }
        }
        self.n_until_look -= 1;
        if self.runs.is_empty() {
            return Ok(self.held.next().copied());
        }
        let Some(Reverse((record, idx))) = self.heads.pop() else {
            return Ok(None);
        };
        if let Some(next) = self.head(idx)? {
            self.heads.push(Reverse((next, idx)));
        }
        Ok(Some(record))
    }
}

/// Records of one length in a file, found by number.
pub(super) struct Table<const LEN: usize> {
    path: PathBuf,
    file: File,
}

impl<const LEN: usize> Table<LEN> {
    pub(super) fn create(folder: &Path, name: &str) -> Result<Self, StageError> {
        let path = folder.join(name);
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create_new(true).open(&path);
        Ok(Self {
            file: file.at(&path)?,
            path,
        })
    }

    pub(super) fn open(folder: &Path, name: &str) -> Result<Self, StageError> {
        let path = folder.join(name);
        Ok(Self {
            file: File::open(&path).at(&path)?,
            path,
        })
    }

    /// Gives records the next numbers.
    pub(super) fn append(&mut self, records: &[[u8; LEN]]) -> Result<(), StageError> {
        self.file.write_all(records.as_flattened()).at(&self.path)
    }

    pub(super) fn get(&self, number: u32) -> Result<[u8; LEN], StageError> {
        let mut record = [0; LEN];
        let at = u64::from(number) * LEN as u64;
        self.file.read_exact_at(&mut record, at).at(&self.path)?;
        Ok(record)
    }
}

/// A set of document numbers, one bit each.
#[derive(Debug)]
pub(super) struct Numbers(Vec<u64>);

impl Numbers {
    pub(super) fn none_of(n_documents: u64) -> Self {
        Self(vec![0; n_documents as usize / 64 + 1])
    }

    /// Whether the number is new to the set.
    pub(super) fn insert(&mut self, number: u32) -> bool {
        let is_new = !self.contains(number);
        self.0[number as usize / 64] |= 1 << (number % 64);
        is_new
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        self.0[number as usize / 64] >> (number % 64) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<const N: usize>(sorted: &Sorted<N>) -> Vec<[u32; N]> {
        let mut reader = sorted.reader().unwrap();
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    #[test]
    fn records_come_out_in_order_however_small_the_memory() {
        let cancel = AtomicBool::new(false);
        // A twentieth of them has one value, which would fill one of any number of buckets.
        let numbers = (0..20_000_u32).map(|n| match n % 20 {
            0 => [7, n],
            _ => [n.wrapping_mul(0x9e37_79b9), n],
        });
        let mut wanted: Vec<[u32; 2]> = numbers.clone().collect();
        wanted.sort_unstable();
        // In memory; a few runs; more than are merged at once, twice over.
        for memory in [1 << 20, 30_000, 64] {
            let dir = tempfile::tempdir().unwrap();
            let mut sorter = Sorter::new(dir.path(), "numbers", memory, &cancel);
            for record in numbers.clone() {
                sorter.push(record).unwrap();
                assert!(sorter.held.len() * 8 <= memory);
            }
            let sorted = sorter.sorted();
            assert!(sorted.runs.len() < 3 * RUNS_MAX);
            assert!(
                read(&sorted) == wanted && read(&sorted) == wanted,
                "{memory}"
            );
            drop(sorted);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_reader_stops_when_told_to() {
        let dir = tempfile::tempdir().unwrap();
        let cancel = AtomicBool::new(false);
        let mut sorter = Sorter::new(dir.path(), "numbers", 1 << 20, &cancel);
        (0..STOP_EVERY + 1).for_each(|n| sorter.push([n]).unwrap());
        let sorted = sorter.sorted();
        let mut reader = sorted.reader().unwrap();
        assert_eq!(reader.next().unwrap(), Some([0]));
        cancel.store(true, Ordering::Relaxed);
        let stopped = (0..STOP_EVERY).find_map(|_| reader.next().err());
        assert!(stopped.unwrap().cancelled);
    }

    #[test]
    fn a_table_finds_records_by_number() {
        let dir = tempfile::tempdir().unwrap();
        let mut table = Table::create(dir.path(), "table").unwrap();
        table.append(&[*b"one", *b"two"]).unwrap();
        assert_eq!(table.get(1).unwrap(), *b"two");
        table.append(&[*b"six"]).unwrap();
        assert_eq!(table.get(2).unwrap(), *b"six");
        assert!(table.get(3).is_err());
    }
}
