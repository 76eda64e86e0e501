//! The loss on a fixed set of rows, in whole and by the role of what is predicted.

use crate::{
    batches::Batches,
    dpo::Rewards,
    engine::{Engine, EngineError, LossSum},
    shards::ROLE_NAMES,
};

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Validation {
    pub all: LossSum,
    /// Indexed by role; see `ROLE_NAMES`.
    pub by_role: [LossSum; ROLE_NAMES.len()],
    /// Of pairs of answers; nothing of likelihoods.
    pub rewards: Rewards,
}

impl LossSum {
    /// Mean loss per token that counts; `None` when none does.
    pub fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.nll / self.weight)
    }

    fn add(&mut self, nll: f64, weight: f64) {
        self.nll += nll * weight;
        self.weight += weight;
    }
}

/// Evaluates all of `batches`; `None` when `keep_going` says no between two of them.
pub fn validate(
    engine: &mut dyn Engine,
    batches: &Batches<'_>,
    micro_batch: usize,
    keep_going: &mut dyn FnMut() -> bool,
) -> Result<Option<Validation>, EngineError> {
    let mut validation = Validation::default();
    for read in batches.evaluation(micro_batch) {
        if !keep_going() {
            return Ok(None);
        }
        let scores = engine.evaluate(&read.batch)?;
        for (place, score) in scores.iter().enumerate() {
            let (nll, weight) = (score.nll.into(), read.batch.weights[place].into());
            if weight > 0.0 {
                validation.all.add(nll, weight);
                validation.by_role[usize::from(read.roles[place])].add(nll, weight);
            }
        }
    }
    Ok(Some(validation))
}
