//! The account of what a stage cost the machine that carried it out.

use serde::{Deserialize, Serialize};

/// Processor time and memory of a job and all that it waited for; zero where nobody measured.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    pub cpu_seconds: f64,
    pub peak_memory_bytes: u64,
}

impl Usage {
    /// Counts what another took beside it.
    pub(crate) fn add(&mut self, other: Self) {
        self.cpu_seconds += other.cpu_seconds;
        self.peak_memory_bytes = self.peak_memory_bytes.max(other.peak_memory_bytes);
    }
}
