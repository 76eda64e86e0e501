//! What an open registry remembers between two writes, so that it need not ask for it again.

use std::{collections::HashMap, time::Instant};

use crate::{entry::SeriesNumbers, journal::Journal};

#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// By run and name of the file.
    pub(crate) journals: HashMap<(String, String), Journal>,
    pub(crate) series: SeriesNumbers,
    /// The run of each execution.
    pub(crate) runs: HashMap<String, String>,
    /// When the journals of others were looked at last.
    pub(crate) looked: Option<Instant>,
    pub(crate) looked_at_all: Option<Instant>,
    /// When progress was told to others last.
    pub(crate) told: Option<Instant>,
    /// Journals that could not be read, in words.
    pub(crate) faults: Vec<String>,
    /// By which it is known whether others have written since.
    pub(crate) tide: i64,
}
