//! The place between the last micro-batch of a step and its update, where the gradients of
//! several processes will become one.
//!
//! It comes before the loss is judged and the gradients' norm is clipped: processes that hold the
//! same sums come to the same judgement and the same weights without another word.

use crate::engine::{Engine, EngineError, LossSum};

/// Turns the sums of this process into those of all.
pub trait Reduction {
    /// Called once a step, after its last micro-batch. Gradients are reached by
    /// [`Engine::each_gradient`], in the same order in every process; returns the loss of all.
    fn reduce(&mut self, engine: &mut dyn Engine, sum: LossSum) -> Result<LossSum, EngineError>;
}

/// A process that trains alone: its sums are all there are.
pub struct Alone;

impl Reduction for Alone {
    fn reduce(&mut self, _: &mut dyn Engine, sum: LossSum) -> Result<LossSum, EngineError> {
        Ok(sum)
    }
}
