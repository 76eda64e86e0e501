//! Why training ends before its time, and what to do about it.

use crate::{
    batches::BatchError, checkpoint::CheckpointError, engine::EngineError, machine::Device,
    reduction::ReductionError, schedule::ScheduleError, shards::ShardsError, state::State,
};

/// Steps that may be skipped one after the other before training is called off.
pub(super) const SKIPPED_MAX: u64 = 20;

#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    Shards(#[from] ShardsError),
    #[error("the `{split}` documents: {source}")]
    Batches {
        split: &'static str,
        source: BatchError,
    },
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Reduction(#[from] ReductionError),
    #[error("the shards have a vocabulary of {shards}, and the model one of {model}")]
    Vocabulary { shards: usize, model: usize },
    #[error("`train.context` is {context}, and the model reads {longest} tokens at most")]
    Context { context: usize, longest: usize },
    #[error("{0} come to no step at all")]
    NoSteps(&'static str),
    #[error("`{name}` is {value}, and must be above 0")]
    NotPositive { name: &'static str, value: f64 },
    #[error(
        "training with {} at a time needs {needed_mb} MB of memory, and {available_mb} MB are free{}",
        rows(*.micro_batch), on_a_gpu(*.device)
    )]
    Memory {
        micro_batch: usize,
        needed_mb: u64,
        /// Of it for the model itself.
        model_mb: u64,
        available_mb: u64,
        device: Device,
    },
    #[error("the checkpoint in this folder belongs to another training: its `{0}` is another")]
    OtherTraining(&'static str),
    #[error("the checkpoint's state cannot be read: {0}")]
    State(serde_json::Error),
    #[error("the {what} is not finite{}", before(.grad_norm))]
    NonFinite {
        what: &'static str,
        lr: f64,
        /// That of the update before.
        grad_norm: Option<f64>,
    },
    #[error("the loss is {loss:.3}, {z:.1} standard deviations above its mean of {mean:.3}")]
    Spike {
        loss: f64,
        mean: f64,
        z: f64,
        lr: f64,
    },
    #[error("{SKIPPED_MAX} steps in a row were skipped")]
    AllSkipped { lr: f64 },
    /// Something went wrong after training had begun.
    #[error("failed at step {step} of {n_steps}")]
    AtStep {
        step: u64,
        n_steps: u64,
        /// The step of the checkpoint to go on from.
        kept: Option<u64>,
        #[source]
        cause: Box<TrainError>,
    },
    #[error("stopped at step {step}")]
    Cancelled { step: u64 },
}

/// Where memory is short, if it is not this machine's own.
fn on_a_gpu(device: Device) -> String {
    match device {
        Device::Cpu => String::new(),
        device => format!(" on `{device}`"),
    }
}

fn rows(n: usize) -> String {
    match n {
        1 => "1 row".to_owned(),
        n => format!("{n} rows"),
    }
}

fn before(grad_norm: &Option<f64>) -> String {
    let told = |norm: &f64| format!(" (gradient norm was {norm:.1e} one step earlier)");
    grad_norm.as_ref().map(told).unwrap_or_default()
}

impl TrainError {
    /// Says at which step it happened, and from which checkpoint to go on.
    pub(super) fn at(self, step: u64, state: &State, kept: Option<u64>) -> Self {
        Self::AtStep {
            step,
            n_steps: state.n_steps,
            kept,
            cause: Box::new(self),
        }
    }

    /// Returns what to do about it, where there is something to be done.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::Shards(error) => error.help(),
            Self::Batches { source, .. } => source.help().to_owned(),
            Self::Schedule(error) => error.help(),
            Self::Vocabulary { .. } => {
                "train with shards that this model's tokenizer made".to_owned()
            }
            Self::Context { longest, .. } => {
                format!(
                    "set `train.context` to at most {longest}, or give the model a longer context"
                )
            }
            Self::NoSteps(_) => "set more `epochs` or `steps`".to_owned(),
            Self::NotPositive { name, .. } => format!("set `{name}` to a positive number"),
            Self::Memory { device, .. } if *device != Device::Cpu => {
                "end what else uses that GPU, set a smaller `micro_batch` or `context`, or take `--device cpu`"
                    .to_owned()
            }
            Self::Memory {
                model_mb,
                available_mb,
                ..
            } if model_mb >= available_mb => {
                format!(
                    "the model alone takes {model_mb} MB: set a smaller `d_model`, `d_ff` or `n_layers`"
                )
            }
            Self::Memory { .. } => {
                "free memory, or set a smaller `micro_batch` or `context`, or a smaller model"
                    .to_owned()
            }
            Self::OtherTraining(_) | Self::State(_) => {
                "remove the checkpoints of this stage and run it again".to_owned()
            }
            Self::NonFinite { lr, .. } | Self::Spike { lr, .. } | Self::AllSkipped { lr } => {
                format!("lower `lr` (now {lr:.2e}) or `clip`, or lengthen `warmup`")
            }
            Self::AtStep { cause, .. } => return cause.help(),
            Self::Checkpoint(error) => return error.help().map(str::to_owned),
            Self::Engine(_) | Self::Reduction(_) | Self::Cancelled { .. } => return None,
        })
    }
}
