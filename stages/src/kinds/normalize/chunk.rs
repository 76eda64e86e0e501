//! Some rows of a file, found and not yet understood.

use std::ops::Range;

use arrow_array::RecordBatch;

use super::conversations::Conversation;

/// A chunk is handed on when it has this many bytes.
pub(super) const CHUNK_BYTES: usize = 4 << 20;

/// Some rows of a file.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) rows: Rows,
    /// Rows that could not even be held.
    pub(super) rejected: Vec<Lost>,
    /// How far into the file it reaches, in bytes (rows for Parquet).
    pub(super) position: u64,
}

/// A row that is rejected with all that may have been swallowed by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) row: u64,
    /// More than one where a quote was left open.
    pub(super) n_rows: u64,
    pub(super) reason: String,
}

#[derive(Debug)]
pub(super) enum Rows {
    Units {
        bytes: Vec<u8>,
        units: Vec<Unit>,
    },
    Table {
        table: RecordBatch,
        first_row: u64,
    },
    /// Put together from rows of which each is a message.
    Conversations(Vec<Conversation>),
}

impl Rows {
    pub(super) fn len(&self) -> u64 {
        let n = match self {
            Self::Units { units, .. } => units.len(),
            Self::Table { table, .. } => table.num_rows(),
            Self::Conversations(conversations) => conversations.len(),
        };
        n as u64
    }

    /// Keeps the first `n` rows.
    pub(super) fn truncate(&mut self, n: u64) {
        let n = usize::try_from(n).unwrap_or(usize::MAX);
        match self {
            Self::Units { units, .. } => units.truncate(n),
            Self::Table { table, .. } => *table = table.slice(0, n.min(table.num_rows())),
            Self::Conversations(conversations) => conversations.truncate(n),
        }
    }
}

impl Chunk {
    /// Returns about how many bytes it takes to understand it. A row longer than a chunk
    /// is understood at once and may be a list of very small things.
    pub(super) fn weight(&self) -> u64 {
        let (n_bytes, longest) = match &self.rows {
            Rows::Units { bytes, units } => {
                let longest = units.iter().map(|unit| unit.at.len()).max();
                (bytes.len(), longest.unwrap_or(0))
            }
            Rows::Table { table, .. } => (table.get_array_memory_size(), 0),
            Rows::Conversations(conversations) => {
                return conversations.iter().map(Conversation::n_bytes).sum();
            }
        };
        let factor = if longest > CHUNK_BYTES { 16 } else { 1 };
        factor * n_bytes as u64
    }
}

/// Where a row stands in its chunk, and its number in the file: the line it begins in,
/// or its place in the array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) row: u64,
    pub(super) at: Range<usize>,
}
