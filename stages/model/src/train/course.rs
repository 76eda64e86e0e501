//! How long a training goes on: known before its first step, since every epoch has the same rows.

use super::{
    error::TrainError,
    settings::{Length, TrainSettings},
};
use crate::{
    batches::{BatchError, BatchSettings, Batches},
    shards::{Shards, ShardsError, Split},
};

/// Validations of a training that does not say how often.
const VALIDATIONS: u64 = 20;

/// The length of a training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Course {
    pub n_steps: u64,
    pub n_epochs: f64,
    /// Tokens that are trained on, and those that all validations read.
    pub n_tokens: u64,
    pub n_validated: u64,
}

impl Course {
    /// Counts as training would.
    pub fn of(shards: &Shards, settings: &TrainSettings) -> Result<Self, TrainError> {
        let train = split(shards, settings, "train")?;
        let batches = Batches::new(&train, &settings.batches, settings.seed);
        let batches = batches.map_err(|source| TrainError::Batches {
            split: "train",
            source,
        })?;
        let n_per_epoch = batches.n_per_epoch();
        let n_steps = settings.length.n_steps(n_per_epoch)?;
        let n_epochs = n_steps as f64 / n_per_epoch as f64;
        let validate_every = validate_every(settings, shards, n_steps);
        let mut n_validated = 0;
        if validate_every > 0 {
            let held = split(shards, settings, "validation")?;
            let set = fixed_set(&held, settings, validate_every.min(n_steps))?;
            let places = set.coverage().places * set.n_evaluated() as u64;
            let times = n_steps.div_ceil(validate_every);
            n_validated = times * places / set.coverage().rows.max(1);
        }
        Ok(Self {
            n_steps,
            n_epochs,
            n_tokens: (batches.coverage().places as f64 * n_epochs) as u64,
            n_validated,
        })
    }

    /// Estimates from a number of tokens for training.
    pub fn about(
        n_tokens: u64,
        length: Length,
        batches: &BatchSettings,
    ) -> Result<Self, TrainError> {
        let a_step = (batches.batch as u64).saturating_mul(batches.context as u64);
        let n_per_epoch = n_tokens.div_ceil(a_step.max(1)).max(1);
        let n_steps = length.n_steps(n_per_epoch)?;
        let n_epochs = n_steps as f64 / n_per_epoch as f64;
        let n_tokens = (n_tokens as f64 * n_epochs) as u64;
        Ok(Self {
            n_steps,
            n_epochs,
            n_tokens,
            // A quarter of what is trained on, at most.
            n_validated: n_tokens / 4,
        })
    }
}

pub(super) fn split(
    shards: &Shards,
    settings: &TrainSettings,
    name: &str,
) -> Result<Split, ShardsError> {
    match settings.dpo {
        None => shards.split(name),
        Some(_) => shards.split_of_pairs(name),
    }
}

/// Steps between two validations; 0 where there are none.
pub(super) fn validate_every(settings: &TrainSettings, shards: &Shards, n_steps: u64) -> u64 {
    match settings.validate_every {
        Some(asked) => asked,
        None if shards.has("validation") => n_steps.div_ceil(VALIDATIONS),
        None => 0,
    }
}

/// The rows of every validation.
pub(super) fn fixed_set<'a>(
    split: &'a Split,
    settings: &TrainSettings,
    validate_every: u64,
) -> Result<Batches<'a>, TrainError> {
    // A quarter of the rows that are trained on in between, which takes far less time.
    let affordable = (validate_every as usize).saturating_mul(settings.batches.batch) / 4;
    let n_rows = settings.validate_rows.unwrap_or(affordable.clamp(64, 1000));
    let set = Batches::for_evaluation(split, &settings.batches, n_rows);
    set.map_err(|source: BatchError| TrainError::Batches {
        split: "validation",
        source,
    })
}
