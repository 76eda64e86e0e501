//! Files of records: so many numbers of four bytes each, end to end.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
};

use tinylm_pipeline::{At, StageError};

pub(super) struct RecordsWriter<const N: usize> {
    path: PathBuf,
    file: BufWriter<File>,
}

impl<const N: usize> RecordsWriter<N> {
    pub(super) fn create(path: &Path, buffer_bytes: usize) -> Result<Self, StageError> {
        let file = File::create_new(path).at(path)?;
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(buffer_bytes, file),
        })
    }

    pub(super) fn push(&mut self, record: [u32; N]) -> Result<(), StageError> {
        for word in record {
            self.file.write_all(&word.to_le_bytes()).at(&self.path)?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(), StageError> {
        self.file.flush().at(&self.path)
    }
}

/// Records that are read one after the other.
pub(super) struct Records<const N: usize> {
    path: PathBuf,
    file: BufReader<File>,
    n_left: u64,
}

impl<const N: usize> Records<N> {
    /// Opens a file to read those whose numbers are in `range`.
    pub(super) fn open(
        path: &Path,
        buffer_bytes: usize,
        range: Range<u64>,
    ) -> Result<Self, StageError> {
        let mut file = File::open(path).at(path)?;
        let record_bytes = size_of::<[u32; N]>() as u64;
        let start = SeekFrom::Start(range.start * record_bytes);
        file.seek(start).at(path)?;
        Ok(Self {
            path: path.to_owned(),
            file: BufReader::with_capacity(buffer_bytes, file),
            n_left: range.end - range.start,
        })
    }

    /// Opens a file to read all of it.
    pub(super) fn open_all(path: &Path, buffer_bytes: usize) -> Result<Self, StageError> {
        let n_bytes = path.metadata().at(path)?.len();
        let n_records = n_bytes / size_of::<[u32; N]>() as u64;
        Self::open(path, buffer_bytes, 0..n_records)
    }

    pub(super) fn next(&mut self) -> Result<Option<[u32; N]>, StageError> {
        if self.n_left == 0 {
            return Ok(None);
        }
        self.n_left -= 1;
        let mut record = [0; N];
        for word in &mut record {
            let mut bytes = [0; 4];
            self.file.read_exact(&mut bytes).at(&self.path)?;
            *word = u32::from_le_bytes(bytes);
        }
        Ok(Some(record))
    }
}
