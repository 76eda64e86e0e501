//! Records in buckets, in memory until they outgrow it.
//!
//! A bucket is small enough to be loaded and sorted by itself. What is in it, and in
//! which order, does not depend on whether it has been to disk.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use tinylm_pipeline::{At, StageError};

/// Fixed-length records by bucket.
pub(super) struct Buckets<const LEN: usize> {
    folder: PathBuf,
    name: &'static str,
    memory: usize,
    n_held: usize,
    buckets: Vec<Bucket>,
}

#[derive(Default)]
struct Bucket {
    held: Vec<u8>,
    file: Option<(PathBuf, File)>,
}

impl<const LEN: usize> Buckets<LEN> {
    /// Makes as many buckets as keep each within a quarter of `memory` when about
    /// `n_records` are spread evenly.
    pub(super) fn new(folder: &Path, name: &'static str, n_records: u64, memory: usize) -> Self {
        let n_bytes = n_records.saturating_mul(LEN as u64);
        let n_buckets = n_bytes.div_ceil((memory as u64 / 4).max(1)).clamp(1, 512);
        Self {
            folder: folder.to_owned(),
            name,
            memory,
            n_held: 0,
            buckets: (0..n_buckets).map(|_| Bucket::default()).collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Returns the bucket of an evenly spread number.
    pub(super) fn bucket_of(&self, number: u64) -> usize {
        ((u128::from(number) * self.buckets.len() as u128) >> 64) as usize
    }

    pub(super) fn push(&mut self, bucket: usize, record: [u8; LEN]) -> Result<(), StageError> {
        self.buckets[bucket].held.extend_from_slice(&record);
        self.n_held += LEN;
        if self.n_held > self.memory {
            self.spill()?;
        }
        Ok(())
    }

    fn spill(&mut self) -> Result<(), StageError> {
        for (idx, bucket) in self.buckets.iter_mut().enumerate() {
            if bucket.held.is_empty() {
                continue;
            }
            let (path, file) = match &mut bucket.file {
                Some(open) => open,
                closed => {
                    let path = self.folder.join(format!("{}-{idx}", self.name));
                    let file = OpenOptions::new().create_new(true).append(true).open(&path);
                    let file = file.at(&path)?;
                    closed.insert((path, file))
                }
            };
            file.write_all(&bucket.held).at(&*path)?;
            bucket.held.clear();
        }
        self.n_held = 0;
        Ok(())
    }

    /// Returns the records of a bucket in the order they came, and forgets them.
    pub(super) fn take(&mut self, bucket: usize) -> Result<Vec<[u8; LEN]>, StageError> {
        let Bucket { held, file } = std::mem::take(&mut self.buckets[bucket]);
        self.n_held -= held.len();
        let mut bytes = Vec::new();
        if let Some((path, file)) = file {
            drop(file);
            bytes = fs::read(&path).at(&path)?;
            fs::remove_file(&path).at(&path)?;
        }
        bytes.extend_from_slice(&held);
        let (records, _) = bytes.as_chunks();
        Ok(records.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_to_disk_comes_back_in_order() {
        let contents = [1 << 20, 64].map(|memory| {
            let dir = tempfile::tempdir().unwrap();
            let mut buckets: Buckets<4> = Buckets::new(dir.path(), "numbers", 100, 200);
            buckets.memory = memory;
            assert_eq!(buckets.len(), 8);
            for number in 0..100_u32 {
                let spread = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let bucket = buckets.bucket_of(spread);
                buckets.push(bucket, number.to_le_bytes()).unwrap();
            }
            let taken: Vec<Vec<[u8; 4]>> = (0..8).map(|b| buckets.take(b).unwrap()).collect();
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
            taken
        });
        assert_eq!(contents[0], contents[1]);
        assert_eq!(contents[0].concat().len(), 100);
    }
}
