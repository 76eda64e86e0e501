//! The seam between the training loop and what computes.
//!
//! The loop decides what to do (which batch, which learning rate, when to stop);
//! an engine turns batches into gradients and gradients into new weights. It holds
//! the weights and the optimizer's moments and nothing else, so saving what `weights`
//! and `optimizer` return is a complete checkpoint, which `restore` takes up. Of a
//! training with an adapter the base belongs to it too, and comes from whoever began it.

mod batch;
mod error;
mod settings;
mod tensors;

pub use batch::Batch;
pub use error::EngineError;
pub use settings::EngineSettings;
pub use tensors::{Tensor, Tensors};
pub(crate) use tensors::{find, no_strangers};

use crate::config::ModelConfig;
use crate::machine::Machine;

/// The choices of a gradient pass besides its batch.
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

/// A model with its optimizer on some device.
pub trait Engine {
    fn config(&self) -> &ModelConfig;

    fn settings(&self) -> &EngineSettings;

    /// The machine it runs on, as it was before the engine took its memory.
    fn machine(&self) -> &Machine;

    /// Runs forward and backward and adds to the gradients held since the last update.
    fn accumulate(&mut self, batch: &Batch, pass: Pass) -> Result<LossSum, EngineError>;

    /// Shows `f` the held gradient of each tensor that is trained, by name, in the order of
    /// `ModelConfig::parameters`; zeros where none is held. A device that cannot show them is an error.
    fn each_gradient(&mut self, f: &mut dyn FnMut(&str, &mut [f32])) -> Result<(), EngineError>;

    /// Appends the held gradients, as `each_gradient` shows them, and holds none any more.
    fn take_gradient(&mut self, to: &mut Vec<f32>) -> Result<(), EngineError> {
        self.each_gradient(&mut |_, part| to.extend_from_slice(part))?;
        self.discard();
        Ok(())
    }

    /// Holds these gradients, and no others.
    fn hold_gradient(&mut self, from: &[f32]) -> Result<(), EngineError> {
        let mut rest = from;
        self.each_gradient(&mut |_, part| {
            let (own, others) = rest.split_at(part.len().min(rest.len()));
            part.copy_from_slice(own);
            rest = others;
        })
    }

    /// Applies the held gradients and drops them. A non-finite norm changes nothing.
    fn update(&mut self, update: &Update) -> Result<UpdateStats, EngineError>;

    /// Drops the held gradients.
    fn discard(&mut self);

    /// Returns the negative log-likelihood of each place (no dropout, no smoothing),
    /// and whether the target was the most likely / among the five most likely.
    fn evaluate(&mut self, batch: &Batch) -> Result<Vec<Score>, EngineError>;

    /// The most memory that it has taken of a device that has its own.
    fn device_bytes(&self) -> Option<u64> {
        None
    }

    fn weights(&self) -> Result<Tensors, EngineError>;

    /// Begins with these weights; an adapter starts anew on them.
    fn load_weights(&mut self, weights: &Tensors) -> Result<(), EngineError>;

    /// The optimizer's moments, named after the weights they belong to
    /// (`adam.m.blocks.0.qkv.weight`, `adam.v.`, `muon.m.`), and an adapter's factors.
    fn optimizer(&self) -> Result<Tensors, EngineError>;
    fn load_optimizer(&mut self, state: &Tensors) -> Result<(), EngineError>;

    /// Goes on from what `weights` and `optimizer` returned, on the base that was loaded.
    fn restore(&mut self, weights: &Tensors, optimizer: &Tensors) -> Result<(), EngineError> {
        self.load_weights(weights)?;
        self.load_optimizer(optimizer)
    }
}

/// How well one target was predicted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Score {
    pub nll: f32,
    /// 0 when the target was the most likely token, 1 for the second, ... capped at 255.
    pub rank: u8,
}
