//! The settings of the training loop.

use std::time::Duration;

use tinylm_settings::choices;

use super::error::TrainError;
use crate::{batches::BatchSettings, dpo::Dpo, schedule::Schedule};

#[derive(Debug, Clone, PartialEq)]
pub struct TrainSettings {
    pub length: Length,
    pub batches: BatchSettings,
    /// Learns from pairs, in place of likelihoods.
    pub dpo: Option<Dpo>,
    pub schedule: Schedule,
    /// Norm above which gradients are scaled down; infinite switches it off.
    pub clip: f32,
    /// Rows computed at a time; `None` takes what fits into `memory`.
    pub micro_batch: Option<usize>,
    /// The parts of a step whose gradients are added in a fixed tree, and that several processes may
    /// share; 0 adds them one after the other in one process.
    pub leaves: usize,
    /// Steps between two validations; 0 never validates, `None` does so twenty times.
    pub validate_every: Option<u64>,
    /// Rows of the fixed validation set; `None` takes as many as cost little.
    pub validate_rows: Option<usize>,
    /// Validations without a gain after which training stops.
    pub patience: Option<u64>,
    pub on_non_finite: OnNonFinite,
    pub on_spike: OnSpike,
    /// Standard deviations above the running mean that make a loss a spike.
    pub spike_z: f64,
    pub seed: u64,
    /// Updates that the optimizer's moments come from already.
    pub updates_before: u64,
    pub watch: WatchSettings,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Length {
    Epochs(f64),
    Steps(u64),
}

choices! {
    /// The fate of a step whose loss or gradient is not finite: left out, or the end of the training.
    pub enum OnNonFinite {
        Stop = "stop",
        Skip = "skip",
    }
}

choices! {
    /// The fate of a step whose loss is far above its running mean.
    pub enum OnSpike {
        /// The step is taken all the same, and told of.
        Warn = "warn",
        Skip = "skip",
        Stop = "stop",
    }
}

impl OnNonFinite {
    /// Returns the fate of the step in words, unless training ends.
    pub(super) fn fate(self) -> Option<&'static str> {
        match self {
            Self::Stop => None,
            Self::Skip => Some("skipped"),
        }
    }
}

impl OnSpike {
    /// As that of [`OnNonFinite`].
    pub(super) fn fate(self) -> Option<&'static str> {
        match self {
            Self::Warn => Some("taken all the same"),
            Self::Skip => Some("skipped"),
            Self::Stop => None,
        }
    }
}

/// Logs and checkpoints: none of it changes what is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchSettings {
    /// `None` tells every tenth step, and more of a training with few.
    pub log_every: Option<u64>,
    /// Steps between two checkpoints; 0 saves for validations and by time only.
    pub checkpoint_every: u64,
    /// Work that may be lost at most.
    pub checkpoint_interval: Duration,
    pub keep_checkpoints: usize,
    /// Measured peak of the machine, to which the speed is compared, when it is known.
    pub flops_per_second: Option<f64>,
}

impl Length {
    pub(super) fn n_steps(self, n_per_epoch: u64) -> Result<u64, TrainError> {
        let (name, n_steps) = match self {
            Self::Epochs(epochs) => ("`epochs`", (epochs * n_per_epoch as f64).ceil()),
            Self::Steps(steps) => ("`steps`", steps as f64),
        };
        // A NaN is not above 0 either.
        if n_steps > 0.0 {
            Ok(n_steps as u64)
        } else {
            Err(TrainError::NoSteps(name))
        }
    }
}
