//! One tensor's moments: their names in a checkpoint, and the update they take part in.
//!
//! AdamW has a first and a second moment, Muon only the first. They come into being with the first
//! gradient, and a tensor that is not trained has none.

use crate::config::Parameter;
use crate::engine::{EngineError, EngineSettings, Tensors, Update, find};
use crate::kernels::optimizer::{AdamStep, MuonStep, adam, muon};
use crate::optimizer::Optimizer;

/// In the order of their names.
pub(crate) struct Moments(Vec<Vec<f32>>);

/// The names under which a tensor's moments are saved.
pub(crate) fn names(parameter: &Parameter, optimizer: Optimizer) -> Vec<String> {
    let kinds: &[&str] = match optimizer.is_muon_for(parameter.role) {
        true => &["muon.m"],
        false => &["adam.m", "adam.v"],
    };
    let named = kinds
        .iter()
        .map(|kind| format!("{kind}.{}", parameter.name));
    named.collect()
}

impl Moments {
    /// Moments before the first gradient.
    pub(crate) fn new(parameter: &Parameter, optimizer: Optimizer) -> Self {
        let n_moments = optimizer.n_moments(parameter.role);
        Moments((0..n_moments).map(|_| vec![0.0; parameter.n()]).collect())
    }

    pub(crate) fn load(
        state: &Tensors,
        parameter: &Parameter,
        optimizer: Optimizer,
    ) -> Result<Self, EngineError> {
        let names = names(parameter, optimizer).into_iter();
        let found = names.map(|name| find(state, &name, &parameter.shape));
        found.collect::<Result<_, _>>().map(Moments)
    }

    /// The moment with the name at this place in `names`.
    pub(crate) fn nth(&self, idx: usize) -> &[f32] {
        &self.0[idx]
    }

    /// Changes a tensor by its gradient, of which `scale` times is the mean's.
    pub(crate) fn step(
        &mut self,
        parameter: &Parameter,
        weight: &mut [f32],
        grad: &mut [f32],
        how: (&EngineSettings, &Update, f32),
    ) {
        let (settings, update, scale) = how;
        let keep = kept(parameter, settings, update);
        match &mut self.0[..] {
            [m, v] => adam(adam_step(settings, update, keep, scale), weight, grad, m, v),
            [m] => {
                let step = MuonStep {
                    momentum: settings.momentum,
                    lr: update.lr,
                    keep,
                    scale,
                };
                muon(step, weight, grad, m, parameter.shape[1]);
            }
            _ => (),
        }
    }
}

/// The part of a weight that decay leaves.
pub(crate) fn kept(parameter: &Parameter, settings: &EngineSettings, update: &Update) -> f32 {
    let decay = match parameter.role.decays() {
        true => settings.weight_decay,
        false => 0.0,
    };
    1.0 - update.lr * decay
}

/// AdamW's numbers for an update of weights of which it keeps this part.
pub(crate) fn adam_step(
    settings: &EngineSettings,
    update: &Update,
    keep: f32,
    scale: f32,
) -> AdamStep {
    // In f64 and by exponent, so that step 100,000 is as exact as step 1.
    let correction = |beta: f32| 1.0 - f64::from(beta).powf(update.step as f64);
    AdamStep {
        beta1: settings.beta1,
        beta2: settings.beta2,
        eps: settings.eps,
        lr: (f64::from(update.lr) / correction(settings.beta1)) as f32,
        correction2: (1.0 / correction(settings.beta2)) as f32,
        keep,
        scale,
    }
}
