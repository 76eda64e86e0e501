//! The outside, which training tells its metrics, its progress and the data it reads.

use super::settings::TrainSettings;
use crate::{
    batches::Coverage,
    engine::{Engine, EngineError},
    state::{State, by_role},
    validation::Validation,
};

/// Whoever listens to a training.
pub trait Watcher {
    fn metric(&mut self, name: &str, step: u64, value: f64);

    /// Tells how far training is. Returns false when it should stop.
    fn progress(&mut self, step: u64, n_steps: u64, epoch: u64) -> bool;

    fn info(&mut self, message: String);

    fn warn(&mut self, message: String);

    /// Training begins at `step`: what an earlier attempt told from there on is void.
    fn starting(&mut self, step: u64);

    /// A good moment to let the model speak.
    fn sample(&mut self, step: u64, engine: &dyn Engine) -> Result<(), EngineError>;
}

pub(super) fn is_logged(state: &State, settings: &TrainSettings) -> bool {
    /// Logged steps that even a short training has, where it has so many.
    const LOGS_MIN: u64 = 50;
    const EVERY_MAX: u64 = 10;
    let asked = settings.watch.log_every;
    let every = asked.unwrap_or_else(|| (state.n_steps / LOGS_MIN).min(EVERY_MAX));
    let every = every.max(1);
    state.step == 1 || state.step == state.n_steps || state.step.is_multiple_of(every)
}

pub(super) fn log(state: &State, watcher: &mut dyn Watcher) {
    for (name, value) in &state.metrics {
        watcher.metric(name, state.step, *value);
    }
}

pub(super) fn log_validation(validation: &Validation, state: &State, watcher: &mut dyn Watcher) {
    if let Some(loss) = validation.all.mean().filter(|loss| loss.is_finite()) {
        watcher.metric("validation_loss", state.step, loss);
    }
    let by_role = by_role(validation).into_iter();
    for (role, loss) in by_role.filter(|(_, loss)| loss.is_finite()) {
        watcher.metric(&format!("validation_loss_{role}"), state.step, loss);
    }
    let rewards = validation.rewards.metrics().into_iter();
    for (name, value) in rewards.filter(|(_, value)| value.is_finite()) {
        watcher.metric(&format!("validation_{name}"), state.step, value);
    }
}

pub(super) fn report_coverage(coverage: &Coverage, watcher: &mut dyn Watcher) {
    let Coverage {
        documents,
        documents_long,
        documents_too_short,
        tokens_cropped,
        pieces_without_target,
        rows,
        places,
    } = coverage;
    watcher.info(format!(
        "{documents} documents in {rows} rows, {places} places in use"
    ));
    if *tokens_cropped > 0 {
        watcher.warn(format!(
            "{documents_long} documents are longer than the context: {tokens_cropped} tokens are left out"
        ));
    }
    if *documents_too_short > 0 {
        watcher.warn(match documents_too_short {
            1 => "a document of a single token is left out".to_owned(),
            n => format!("{n} documents of a single token are left out"),
        });
    }
    if *pieces_without_target > 0 {
        watcher.warn(match pieces_without_target {
            1 => "a document, or a part of one, holds nothing to learn and is left out".to_owned(),
            n => format!("{n} documents, or parts of them, hold nothing to learn and are left out"),
        });
    }
}
