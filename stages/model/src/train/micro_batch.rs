//! The number of rows computed at a time: as many as are of use and fit into memory.

use super::error::TrainError;
use crate::{
    batches::BatchSettings, config::ModelConfig, engine::EngineSettings, machine::Machine,
};

/// Tokens a micro-batch chosen by `auto` has at most: more would only take memory.
const MICRO_BATCH_TOKENS: usize = 8192;

/// The largest micro-batch that fits, or the one asked for if it does. The rows of a step
/// are spread evenly, so that no micro-batch is much smaller than the others.
pub fn choose_micro_batch(
    config: &ModelConfig,
    settings: &EngineSettings,
    machine: &Machine,
    batches: &BatchSettings,
    asked: Option<usize>,
) -> Result<usize, TrainError> {
    let (batch, context) = (batches.batch, batches.places());
    let fits = |n_rows| fits(config, settings, machine, (n_rows, context)).map(|()| n_rows);
    if let Some(asked) = asked {
        return fits(asked.min(batch));
    }
    fits(1)?;
    let n_rows_max = (MICRO_BATCH_TOKENS / context.max(1)).clamp(1, batch.max(1));
    // The largest that comes of cutting the batch into equal parts.
    let is_part = |n_rows: &usize| batch.div_ceil(batch.div_ceil(*n_rows).max(1)) == *n_rows;
    let mut parts = (1..=n_rows_max).rev().filter(is_part);
    let chosen = parts.find(|&n_rows| fits(n_rows).is_ok());
    Ok(chosen.unwrap_or(1))
}

/// Refuses rows that do not fit into memory.
pub(super) fn fits(
    config: &ModelConfig,
    settings: &EngineSettings,
    machine: &Machine,
    (n_rows, context): (usize, usize),
) -> Result<(), TrainError> {
    let estimate = settings.memory(config, n_rows, context);
    match machine.memory_bytes {
        Some(available) if estimate.total() > available => Err(TrainError::Memory {
            micro_batch: n_rows,
            needed_mb: estimate.total() >> 20,
            model_mb: estimate.model() >> 20,
            available_mb: available >> 20,
            device: machine.device,
        }),
        _ => Ok(()),
    }
}
