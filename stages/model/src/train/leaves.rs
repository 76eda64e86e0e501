//! A step whose rows are divided into leaves, and the processes that take it together.
//!
//! The one that decides goes through the training loop; the others only follow it, and hold nothing but
//! weights and moments. A process that is lost costs the step that was under way: it is taken again
//! with those that are left, and comes to the same bits.

use std::{cell::RefCell, mem, ops::Range};

use super::{TrainError, TrainSettings, course::split};
use crate::{
    batches::Batches,
    engine::{Batch, Engine, LossSum, Pass, Tensors, Update},
    reduction::{Order, Part, Reduction, ReductionError, add, add_numbers},
    shards::Shards,
    tree,
};

/// What a process that follows is told, in this order: first the weights and moments, then step by step.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    State {
        weights: Tensors,
        optimizer: Tensors,
    },
    Step(Order),
    Update(Update),
    /// The step comes to nothing.
    Discard,
    End,
}

/// The process that decides, as one that follows it sees it.
pub trait Leader {
    fn next(&mut self) -> Result<Told, ReductionError>;
    fn ours(&self, n_leaves: usize) -> Range<usize>;
    /// Sends these parts to whoever adds them; the engine's gradients become the sum.
    fn combine(&mut self, n_leaves: usize, parts: Vec<Part>) -> Result<Part, ReductionError>;
}

/// More than this are never of use at once, but for a tree of hundreds of leaves.
const SPARE_MAX: usize = 4;

/// Buffers of gradients that have been added and are free: to ask the system for their pages again for
/// every leaf costs as much as the leaf.
#[derive(Debug, Default)]
pub(super) struct Spare(RefCell<Vec<Vec<f32>>>);

impl Spare {
    fn take(&self) -> Vec<f32> {
        let mut buffer = self.0.borrow_mut().pop().unwrap_or_default();
        buffer.clear();
        buffer
    }

    fn give(&self, buffer: Vec<f32>) {
        let mut spare = self.0.borrow_mut();
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    }
}

/// Trains as another process decides, until it says that there is no more to do.
pub fn follow(
    engine: &mut dyn Engine,
    shards: &Shards,
    settings: &TrainSettings,
    leader: &mut dyn Leader,
) -> Result<(), TrainError> {
    let train_split = split(shards, settings, "train")?;
    let batches = Batches::new(&train_split, &settings.batches, settings.seed);
    let mut batches = batches.map_err(|source| TrainError::Batches {
        split: "train",
        source,
    })?;
    let spare = Spare::default();
    loop {
        match leader.next()? {
            Told::State { weights, optimizer } => engine.restore(&weights, &optimizer)?,
            Told::Step(order) => {
                let leaves = batches.leaves(order.step, settings.leaves, order.micro_batch);
                let n_leaves = leaves.len();
                let pass = Pass {
                    seed: settings.seed,
                    step: order.step + 1,
                };
                let ours = leader.ours(n_leaves);
                let parts = parts(engine, leaves, &ours, (pass, &spare), &mut || Ok(()))?;
                let sum = leader.combine(n_leaves, parts)?;
                engine.hold_gradient(&sum.gradient)?;
                spare.give(sum.gradient);
            }
            Told::Update(update) => drop(engine.update(&update)?),
            Told::Discard => engine.discard(),
            Told::End => return Ok(()),
        }
    }
}

/// Takes part in a step as the process that decides: makes our leaves and holds the sum of all.
pub(super) fn together(
    engine: &mut dyn Engine,
    leaves: Vec<Vec<Batch>>,
    (pass, order, spare): (Pass, Order, &Spare),
    reduction: &mut dyn Reduction,
    keep_going: &mut dyn FnMut() -> Result<(), TrainError>,
) -> Result<LossSum, TrainError> {
    reduction.begin(engine, order)?;
    let n_leaves = leaves.len();
    let ours = reduction.ours(n_leaves);
    let parts = parts(engine, leaves, &ours, (pass, spare), keep_going)?;
    let sum = reduction.combine(n_leaves, parts)?;
    engine.hold_gradient(&sum.gradient)?;
    spare.give(sum.gradient);
    Ok(sum.loss)
}

/// Makes our leaves, a part for each whole node of them.
fn parts(
    engine: &mut dyn Engine,
    leaves: Vec<Vec<Batch>>,
    ours: &Range<usize>,
    (pass, spare): (Pass, &Spare),
    keep_going: &mut dyn FnMut() -> Result<(), TrainError>,
) -> Result<Vec<Part>, TrainError> {
    let n_leaves = leaves.len();
    let mut leaf = |leaf: usize| -> Result<Part, TrainError> {
        let mut loss = LossSum::default();
        for batch in &leaves[leaf] {
            keep_going()?;
            let part = engine.accumulate(batch, pass)?;
            loss.nll += part.nll;
            loss.weight += part.weight;
        }
        let mut gradient = spare.take();
        engine.take_gradient(&mut gradient)?;
        Ok(Part {
            leaves: leaf..leaf + 1,
            loss,
            gradient,
        })
    };
    let add = |left: &mut Part, mut right: Part| {
        let added = mem::take(&mut right.gradient);
        add_numbers(&mut left.gradient, &added);
        spare.give(added);
        add(left, right);
    };
    let nodes = tree::nodes(0..n_leaves, ours).into_iter();
    nodes
        .map(|node| tree::sum(&node, &mut leaf, &add))
        .collect()
}
