//! How much of a file is wanted, told from its bytes while they come.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
};

use tinylm_pipeline::{At, StageError};

/// Finds the ends of rows in bytes as they come.
#[derive(Debug, Clone)]
pub(crate) struct RowEnds {
    quotes: bool,
    in_quotes: bool,
}

impl RowEnds {
    /// Returns what finds the rows of a file; `None` where they cannot be counted.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        let quotes = match extension.to_ascii_lowercase().as_str() {
            "jsonl" | "ndjson" | "tsv" => false,
            "csv" => true,
            _ => return None,
        };
        Some(Self {
            quotes,
            in_quotes: false,
        })
    }

    /// A CSV file opens with a record of names.
    pub(crate) fn n_header(&self) -> u64 {
        u64::from(self.quotes)
    }

    /// Returns how many of `bytes` hold the next `wanted` rows, and how many rows they end.
    fn take(&mut self, bytes: &[u8], wanted: u64) -> (usize, u64) {
        let mut n_rows = 0;
        for (idx, byte) in bytes.iter().enumerate() {
            match byte {
                b'"' if self.quotes => self.in_quotes = !self.in_quotes,
                b'\n' if !self.in_quotes => n_rows += 1,
                _ => continue,
            }
            if n_rows == wanted {
                return (idx + 1, n_rows);
            }
        }
        (bytes.len(), n_rows)
    }
}

/// How much of one file is still wanted.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    pub(crate) ends: RowEnds,
    pub(crate) wanted: u64,
}

impl Cut {
    /// Returns how many of these bytes are wanted; fewer than all means that it is enough.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> usize {
        let (n_bytes, n_rows) = self.ends.take(bytes, self.wanted);
        self.wanted -= n_rows;
        n_bytes
    }

    pub(crate) fn is_full(&self) -> bool {
        self.wanted == 0
    }

    /// Returns what is still wanted behind the bytes of a file, if there is one.
    pub(crate) fn behind(mut self, path: &Path) -> Result<Self, StageError> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(self),
            file => file.at(path)?,
        };
        let mut buffer = vec![0; 1 << 16];
        while !self.is_full() {
            let n_read = file.read(&mut buffer).at(path)?;
            if n_read == 0 {
                break;
            }
            self.take(&buffer[..n_read]);
        }
        Ok(self)
    }
}
