//! The place in a step where several processes become one.
//!
//! Each makes the gradients of some of the step's leaves (`tree.rs`), and all of them get the sum. It
//! comes before the loss is judged and the gradients' norm is clipped: one process judges, and
//! those that hold the same weights and the same sums make the same update of them.

use std::ops::Range;

use rayon::prelude::*;

use crate::engine::{Engine, EngineError, LossSum, Update};

/// A step that is about to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Counted from 0.
    pub step: u64,
    /// Rows computed at a time inside a leaf.
    pub micro_batch: usize,
}

/// The sum over some leaves.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub leaves: Range<usize>,
    pub loss: LossSum,
    /// Of all that is trained, in the order of [`Engine::each_gradient`].
    pub gradient: Vec<f32>,
}

/// Why a step has no sum.
#[derive(Debug, thiserror::Error)]
pub enum ReductionError {
    /// A process is gone or silent. The step can be taken again with those that are left.
    #[error("{0}")]
    Lost(String),
    /// Nothing will come of it however often it is tried.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The processes that train together, as the one that decides sees them.
pub trait Reduction {
    /// Lets all begin a step; those that are new are given the engine's weights and moments first.
    fn begin(&mut self, engine: &mut dyn Engine, order: Order) -> Result<(), ReductionError>;

    /// The leaves that this process makes.
    fn ours(&self, n_leaves: usize) -> Range<usize>;

    /// Adds the parts of all.
    fn combine(&mut self, n_leaves: usize, parts: Vec<Part>) -> Result<Part, ReductionError>;

    /// Tells the others what becomes of the sum: this update, or none.
    fn decide(&mut self, update: Option<&Update>);
}

/// A process that trains alone.
pub struct Alone;

impl Reduction for Alone {
    fn begin(&mut self, _: &mut dyn Engine, _: Order) -> Result<(), ReductionError> {
        Ok(())
    }

    fn ours(&self, n_leaves: usize) -> Range<usize> {
        0..n_leaves
    }

    fn combine(&mut self, n_leaves: usize, parts: Vec<Part>) -> Result<Part, ReductionError> {
        let missing = || ReductionError::Refused("a part of the step is missing".to_owned());
        join_parts(n_leaves, parts).ok_or_else(missing)
    }

    fn decide(&mut self, _: Option<&Update>) {}
}

/// The sum of parts that make up all leaves.
pub fn join_parts(n_leaves: usize, parts: Vec<Part>) -> Option<Part> {
    let mut parts = parts
        .into_iter()
        .map(|part| (part.leaves.clone(), part))
        .collect();
    crate::tree::join(&(0..n_leaves), &mut parts, &add)
}

/// Adds the part to the right of another.
pub fn add(left: &mut Part, right: Part) {
    left.leaves.end = right.leaves.end;
    left.loss.nll += right.loss.nll;
    left.loss.weight += right.loss.weight;
    add_numbers(&mut left.gradient, &right.gradient);
}

/// Adds numbers one by one, over all threads: their order does not matter to one another.
pub(crate) fn add_numbers(sums: &mut [f32], numbers: &[f32]) {
    const AT_ONCE: usize = 1 << 16;
    let sums = sums.par_chunks_mut(AT_ONCE);
    sums.zip(numbers.par_chunks(AT_ONCE))
        .for_each(|(sums, numbers)| {
            for (sum, number) in sums.iter_mut().zip(numbers) {
                *sum += number;
            }
        });
}
