//! The state of the training loop besides weights and moments. All of it is in the
//! checkpoint, so that a resumed run cannot differ from one that was never stopped.

use serde::{Deserialize, Serialize};

use crate::{machine::Machine, shards::ROLE_NAMES, validation::Validation};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) version: u32,
    /// Steps done; the place in the data follows from it.
    pub(crate) step: u64,
    pub(crate) n_steps: u64,
    pub(crate) seed: u64,
    /// Chosen once: another one would add up in another order.
    pub(crate) micro_batch: usize,
    /// The kernels that computed so far; others may round differently.
    pub(crate) kernels: String,
    pub(crate) device: String,
    /// Updates applied.
    pub(crate) n_updates: u64,
    /// Steps without an update: over a fault, or because nothing in them counts.
    pub(crate) n_skipped: u64,
    /// Steps in a row without an update over a fault.
    pub(crate) n_skipped_in_a_row: u64,
    pub(crate) tokens: u64,
    pub(crate) losses: Losses,
    pub(crate) grad_norm: Option<f64>,
    pub(crate) best: Option<Best>,
    /// Validations since the best one.
    pub(crate) n_without_gain: u64,
    pub(crate) curve: Curve,
    pub(crate) pending: Pending,
    /// Metrics of `step` itself, told again on resuming.
    pub(crate) metrics: Vec<(String, f64)>,
}

/// The weights with the lowest validation loss so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    pub step: u64,
    pub validation_loss: f64,
}

/// The course of a training, thinned to a few hundred points. It holds no times, and
/// how densely it is drawn does not depend on how often metrics are logged, because
/// it is part of an artifact.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Curve {
    /// Mean training loss since the point before.
    pub loss: Vec<(u64, f64)>,
    pub validation: Vec<ValidationPoint>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValidationPoint {
    pub step: u64,
    pub loss: f64,
    /// By role, where more than one was predicted.
    pub by_role: Vec<(String, f64)>,
}

/// Losses since the curve's last point.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Pending {
    sum: f64,
    n: u64,
}

/// Running mean and variance of the training loss, for telling a spike from noise.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Losses {
    n: u64,
    mean: f64,
    variance: f64,
}

const CURVE_POINTS: u64 = 500;

impl State {
    /// Training before its first step.
    pub(crate) fn new(machine: &Machine, seed: u64, n_steps: u64, micro_batch: usize) -> Self {
        Self {
            version: 1,
            step: 0,
            n_steps,
            seed,
            micro_batch,
            kernels: machine.kernels.clone(),
            device: machine.device.to_string(),
            n_updates: 0,
            n_skipped: 0,
            n_skipped_in_a_row: 0,
            tokens: 0,
            losses: Losses::default(),
            grad_norm: None,
            best: None,
            n_without_gain: 0,
            curve: Curve::default(),
            pending: Pending::default(),
            metrics: Vec::new(),
        }
    }

    /// Takes note of a validation. Returns whether it is the best so far, which one whose
    /// loss is not finite never is: JSON has no such number, so it is not drawn either.
    pub(crate) fn judge(&mut self, validation: &Validation) -> bool {
        let Some(loss) = validation.all.mean() else {
            return false;
        };
        if !loss.is_finite() {
            self.n_without_gain += 1;
            return false;
        }
        self.curve.validation.push(ValidationPoint {
            step: self.step,
            loss,
            by_role: by_role(validation),
        });
        let gain = self.best.is_none_or(|best| loss < best.validation_loss);
        if gain {
            self.best = Some(Best {
                step: self.step,
                validation_loss: loss,
            });
            self.n_without_gain = 0;
        } else {
            self.n_without_gain += 1;
        }
        gain
    }

    /// Adds a training loss to the curve.
    pub(crate) fn draw(&mut self, loss: f64) {
        self.pending.sum += loss;
        self.pending.n += 1;
        let last = self.step == self.n_steps;
        if last
            || self
                .step
                .is_multiple_of(self.n_steps.div_ceil(CURVE_POINTS))
        {
            let mean = self.pending.sum / self.pending.n as f64;
            self.curve.loss.push((self.step, mean));
            self.pending = Pending::default();
        }
    }
}

/// Losses by role; nothing when all that was predicted has one role.
pub(crate) fn by_role(validation: &Validation) -> Vec<(String, f64)> {
    let named = ROLE_NAMES.iter().zip(&validation.by_role);
    let seen = named.filter_map(|(name, sum)| Some(((*name).to_owned(), sum.mean()?)));
    let seen: Vec<(String, f64)> = seen.collect();
    if seen.len() > 1 { seen } else { Vec::new() }
}

impl Losses {
    /// Losses before which nothing is called a spike: a falling start is not noise.
    const N_MIN: u64 = 50;
    /// Weight of the newest loss: the mean looks back about a hundred steps.
    const RATE: f64 = 0.02;

    pub(crate) fn mean(&self) -> f64 {
        self.mean
    }

    /// How many standard deviations above the mean a loss is.
    pub(crate) fn z_score(&self, loss: f64) -> f64 {
        if self.n < Self::N_MIN || self.variance <= 0.0 {
            return 0.0;
        }
        (loss - self.mean) / self.variance.sqrt()
    }

    pub(crate) fn add(&mut self, loss: f64) {
        self.n += 1;
        // A plain mean at first, which forgets the start; then an exponential one.
        let rate = Self::RATE.max(1.0 / self.n as f64);
        let distance = loss - self.mean;
        self.mean += rate * distance;
        self.variance = (1.0 - rate) * (self.variance + rate * distance * distance);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::LossSum;

    fn state() -> State {
        State {
            version: 1,
            step: 3,
            n_steps: 9,
            seed: 7,
            micro_batch: 2,
            kernels: "plain".to_owned(),
            device: "cpu".to_owned(),
            n_updates: 3,
            n_skipped: 0,
            n_skipped_in_a_row: 0,
            tokens: 10,
            losses: Losses::default(),
            grad_norm: None,
            best: None,
            n_without_gain: 0,
            curve: Curve::default(),
            pending: Pending::default(),
            metrics: Vec::new(),
        }
    }

    #[test]
    fn a_loss_that_is_no_number_is_never_the_best_and_the_state_can_be_read_again() {
        let validation = |nll| Validation {
            all: LossSum { nll, weight: 1.0 },
            ..Validation::default()
        };
        for broken in [f64::NAN, f64::INFINITY] {
            let mut state = state();
            assert!(!state.judge(&validation(broken)));
            assert_eq!(state.n_without_gain, 1);
            let text = serde_json::to_vec(&state).unwrap();
            assert_eq!(serde_json::from_slice::<State>(&text).unwrap(), state);
            assert!(state.judge(&validation(2.0)));
            assert!(!state.judge(&validation(broken)));
            assert_eq!(state.best.unwrap().validation_loss, 2.0);
        }
    }

    #[test]
    fn a_spike_stands_out_and_noise_does_not() {
        let mut losses = Losses::default();
        for step in 0..200 {
            let noise = if step % 2 == 0 { 0.1 } else { -0.1 };
            let loss = 3.0 + noise;
            assert!(losses.z_score(loss) < 3.0, "step {step}");
            losses.add(loss);
        }
        assert!(losses.z_score(3.2) < 3.0);
        assert!(losses.z_score(5.0) > 6.0);
    }

    #[test]
    fn a_falling_loss_is_never_a_spike() {
        let mut losses = Losses::default();
        for step in 0..500 {
            let loss = 10.0 * (-f64::from(step) / 50.0).exp();
            assert!(losses.z_score(loss) < 1.0);
            losses.add(loss);
        }
    }
}
