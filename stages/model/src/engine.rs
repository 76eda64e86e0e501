//! The seam between the training loop and what computes.
//!
//! The loop decides what to do (which batch, which learning rate, when to stop);
//! an engine turns batches into gradients and gradients into new weights. It holds
//! the weights and the optimizer's moments and nothing else, so saving what
//! `weights` and `optimizer` return and loading it again is a complete checkpoint.

use std::collections::BTreeMap;

use crate::config::{ConfigError, ModelConfig};

/// One micro-batch: `n_rows` sequences of `len` tokens, row after row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    pub n_rows: usize,
    pub len: usize,
    /// Input ids, `n_rows * len`.
    pub tokens: Vec<u16>,
    /// The id to predict at each place, `n_rows * len`.
    pub targets: Vec<u16>,
    /// How much each place counts in the loss: 1.0 or 0.0 (0.0 for padding and masked tokens).
    pub weights: Vec<f32>,
    /// Position of each token inside its own document (packing resets it).
    pub positions: Vec<u16>,
    /// For each token, the index *within its row* where its document starts:
    /// attention at `t` sees `starts[t]..=t` only.
    pub starts: Vec<u16>,
    /// Index of the first row in the step's global batch: random numbers depend on
    /// it, so the same row draws the same dropout however the batch is divided.
    pub row_offset: usize,
}

/// What a gradient pass may vary besides its batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pass {
    pub seed: u64,
    /// The optimizer update this pass belongs to.
    pub step: u64,
}

/// Sums over the places that count, not means: micro-batches add up exactly.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LossSum {
    /// Summed negative log-likelihood in nats (label smoothing included while training).
    pub nll: f64,
    /// Sum of the weights.
    pub weight: f64,
}

/// One optimizer update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// 1 for the first update ever (AdamW's bias correction).
    pub step: u64,
    pub lr: f32,
    /// Gradients are divided by this first: the step's summed weight.
    pub divisor: f64,
    /// Global norm above which gradients are scaled down; infinite switches it off.
    pub clip: f32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UpdateStats {
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// False when the norm was not finite: nothing was changed.
    pub applied: bool,
}

/// Named f32 tensors with their shapes, in name order.
pub type Tensors = BTreeMap<String, Tensor>;

#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("`{name}` has shape {found:?}, the model needs {expected:?}")]
    Shape {
        name: String,
        found: Vec<usize>,
        expected: Vec<usize>,
    },
    #[error("`{0}` is missing")]
    MissingTensor(String),
    #[error("`{0}` is not part of this model")]
    UnknownTensor(String),
    #[error("the batch is not usable: {0}")]
    Batch(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("device: {0}")]
    Device(String),
}

/// A model with its optimizer on some device.
pub trait Engine {
    fn config(&self) -> &ModelConfig;

    /// Runs forward and backward and adds to the gradients held since the last update.
    fn accumulate(&mut self, batch: &Batch, pass: Pass) -> Result<LossSum, EngineError>;

    /// Applies the held gradients and drops them. A non-finite norm changes nothing.
    fn update(&mut self, update: &Update) -> Result<UpdateStats, EngineError>;

    /// Drops the held gradients.
    fn discard(&mut self);

    /// Returns the negative log-likelihood of each place (no dropout, no smoothing),
    /// and whether the target was the most likely / among the five most likely.
    fn evaluate(&mut self, batch: &Batch) -> Result<Vec<Score>, EngineError>;

    fn weights(&self) -> Result<Tensors, EngineError>;
    fn load_weights(&mut self, weights: &Tensors) -> Result<(), EngineError>;

    /// The optimizer's moments, named after the weights they belong to
    /// (`adam.m.blocks.0.qkv.weight`, `adam.v.`, `muon.m.`).
    fn optimizer(&self) -> Result<Tensors, EngineError>;
    fn load_optimizer(&mut self, state: &Tensors) -> Result<(), EngineError>;
}

/// How well one target was predicted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Score {
    pub nll: f32,
    /// 0 when the target was the most likely token, 1 for the second, ... capped at 255.
    pub rank: u8,
}
