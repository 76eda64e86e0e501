//! The rows of the registry, as they are read back; a run is written as one too.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Millis,
    words::{Level, Outcome, Status},
};

/// A run, without its long texts (see [`RunSource`]).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub id: String,
    pub name: String,
    pub experiment: String,
    pub file: String,
    pub seed: Option<u64>,
    pub status: Status,
    pub started_at: Millis,
    pub ended_at: Option<Millis>,
    pub host: Value,
    pub device: String,
    pub git_commit: Option<String>,
    pub git_dirty: Option<bool>,
    pub version: String,
    pub command: String,
    /// Shared by the runs of one sweep.
    pub sweep: Option<String>,
    pub tags: Vec<String>,
}

/// The origin of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSource {
    /// The experiment file as written.
    pub text: String,
    /// The resolved experiment, as JSON.
    pub resolved: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StageRow {
    pub run_id: String,
    pub name: String,
    pub position: u32,
    pub kind: String,
    pub outcome: Outcome,
    pub key: Option<String>,
    pub execution_id: Option<String>,
    pub artifact: Option<String>,
    pub reason: Option<String>,
    pub inputs: Value,
    pub settings: Value,
}

impl StageRow {
    /// Returns the stages it reads, each once, in their order.
    pub fn reads(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (_, read) in self.inputs.as_object().into_iter().flatten() {
            let several = read.as_array().into_iter().flatten();
            for name in several.chain([read]).filter_map(Value::as_str) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Execution {
    pub id: String,
    pub run_id: String,
    pub stage: String,
    pub key: String,
    pub kind: String,
    pub attempt: u32,
    pub status: Status,
    pub started_at: Millis,
    pub ended_at: Option<Millis>,
    pub cpu_seconds: Option<f64>,
    pub peak_memory_bytes: Option<u64>,
    pub artifact: Option<String>,
    pub device: String,
    pub threads: Option<u32>,
    pub origin: Option<Value>,
    pub recipe: String,
    pub error: Option<String>,
    /// Where on a cluster it is or was.
    pub place: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Param {
    pub name: String,
    pub value: String,
    pub is_default: bool,
}

/// The last word of a metric of a run: its final number, else that of its last step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metric {
    pub stage: String,
    pub execution_id: String,
    pub name: String,
    pub step: Option<u64>,
    pub value: f64,
    pub at: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SampleRow {
    pub step: Option<u64>,
    pub prompt: String,
    pub text: String,
    pub at: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    pub stage: Option<String>,
    pub at: Millis,
    pub level: Level,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    pub at: Millis,
    pub text: String,
}

/// The last time that an experiment carried out or found a stage of some name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastStage {
    pub run_name: String,
    /// Read its key record for the recipe where the execution is not known.
    pub key: String,
    pub execution_id: Option<String>,
    /// One `path = value` a line.
    pub recipe: Option<String>,
}

/// How far an execution is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub execution_id: String,
    pub done: u64,
    pub total: Option<u64>,
    pub unit: String,
    /// The part of the work that is under way.
    pub note: Option<String>,
    /// Where its first word of this execution stood, and when: the pace goes from there.
    pub from_done: u64,
    pub from_at: Millis,
    /// Used by its process so far.
    pub cpu_seconds: Option<f64>,
    /// Held by its process now.
    pub memory_bytes: Option<u64>,
    pub at: Millis,
}

impl Progress {
    /// Returns how many seconds are left at the pace so far.
    pub fn seconds_left(&self) -> Option<f64> {
        let done = self
            .done
            .checked_sub(self.from_done)
            .filter(|done| *done > 0)?;
        let left = self.total?.checked_sub(self.done)?;
        let seconds = (self.at - self.from_at).max(0) as f64 / 1e3;
        Some(left as f64 * seconds / done as f64)
    }
}
