//! A finished training: its weights, and the report that goes into `training.json`.

use serde::Serialize;

use crate::{
    batches::Coverage,
    engine::Tensors,
    state::{Best, Curve},
};

/// The outcome of a training.
#[derive(Debug)]
pub struct Trained {
    /// The weights with the lowest validation loss; the last ones if none was measured.
    pub best: Tensors,
    /// The factors of the adapter in `best`; nothing where none was trained.
    pub best_adapter: Tensors,
    pub last: Tensors,
    pub last_adapter: Tensors,
    pub report: TrainReport,
}

/// The contents of `training.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainReport {
    pub steps: u64,
    pub epochs: f64,
    pub tokens: u64,
    /// Updates that the weights have had in all, earlier trainings included.
    pub updates: u64,
    /// Steps without an update: over a fault, or because nothing in them counts.
    pub skipped_steps: u64,
    pub stopped_early: bool,
    pub best: Option<Best>,
    pub data: Coverage,
    pub curve: Curve,
}
