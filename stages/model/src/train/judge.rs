//! Steps and validations whose loss cannot be trusted.

use super::{
    error::TrainError,
    settings::{OnSpike, TrainSettings},
    watcher::Watcher,
};
use crate::{state::State, validation::Validation};

/// Whether a step with this loss is to be taken.
pub(super) fn judge(
    loss: f64,
    lr: f64,
    settings: &TrainSettings,
    state: &State,
    watcher: &mut dyn Watcher,
) -> Result<bool, TrainError> {
    if !loss.is_finite() {
        let cause = non_finite("loss", lr, state);
        fault(
            settings.on_non_finite.fate(),
            cause,
            state.step + 1,
            watcher,
        )?;
        return Ok(false);
    }
    let z = state.losses.z_score(loss);
    if z <= settings.spike_z {
        return Ok(true);
    }
    let mean = state.losses.mean();
    let spike = TrainError::Spike { loss, mean, z, lr };
    fault(settings.on_spike.fate(), spike, state.step + 1, watcher)?;
    Ok(settings.on_spike == OnSpike::Warn)
}

/// A validation whose loss is not finite is a fault too: such weights cannot be the best.
pub(super) fn check_validation(
    validation: &Validation,
    settings: &TrainSettings,
    state: &State,
    watcher: &mut dyn Watcher,
) -> Result<(), TrainError> {
    if validation.all.mean().is_none_or(f64::is_finite) {
        return Ok(());
    }
    let lr = settings.schedule.lr(state.step, state.n_steps);
    let cause = TrainError::NonFinite {
        what: "validation loss",
        lr,
        grad_norm: None,
    };
    fault(settings.on_non_finite.fate(), cause, state.step, watcher)
}

pub(super) fn non_finite(what: &'static str, lr: f64, state: &State) -> TrainError {
    TrainError::NonFinite {
        what,
        lr,
        grad_norm: state.grad_norm,
    }
}

/// Ends training over a fault, or tells of it.
pub(super) fn fault(
    fate: Option<&'static str>,
    fault: TrainError,
    step: u64,
    watcher: &mut dyn Watcher,
) -> Result<(), TrainError> {
    let Some(fate) = fate else {
        return Err(fault);
    };
    let advice = fault.help().unwrap_or_default();
    watcher.warn(format!(
        "step {step}: {fault}; {fate} (if it goes on, {advice})"
    ));
    Ok(())
}
