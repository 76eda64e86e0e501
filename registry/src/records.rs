//! What is recorded of a run, as whoever records it says it and as its journal keeps it.

use serde::{Deserialize, Serialize};

use crate::{
    Digest, Millis,
    words::{Outcome, Status},
};

/// An execution as it begins.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NewExecution {
    pub id: String,
    pub run_id: String,
    pub stage: String,
    pub key: String,
    pub kind: String,
    pub attempt: u32,
    pub started_at: Millis,
    pub device: String,
    pub threads: Option<u32>,
    /// The key's explanation, one `path = value` a line.
    pub recipe: String,
}

/// An execution as it ends.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    pub status: Status,
    pub ended_at: Millis,
    pub cpu_seconds: Option<f64>,
    pub peak_memory_bytes: Option<u64>,
    pub artifact: Option<Digest>,
    /// Where a download came from, as JSON.
    pub origin: Option<String>,
    pub error: Option<String>,
}

/// A stage of a run, as far as it has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    pub run_id: String,
    pub name: String,
    pub position: u32,
    pub kind: String,
    pub outcome: Outcome,
    pub key: Option<Digest>,
    /// The execution that made the artifact, of an earlier run if this one hit.
    pub execution_id: Option<String>,
    pub artifact: Option<Digest>,
    pub reason: Option<String>,
    /// `{"role": ["stage", ...]}`.
    pub inputs: String,
    /// The settings with defaults filled in, as JSON.
    pub settings: String,
}

/// One number of one execution.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricRow {
    pub execution_id: String,
    pub name: String,
    /// Nothing for a final number.
    pub step: Option<u64>,
    pub value: f64,
    pub at: Millis,
}
