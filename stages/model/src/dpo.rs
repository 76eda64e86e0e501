//! Direct preference optimisation: of two answers to a prompt, the chosen one is made likelier against
//! the rejected one than it was to the model that training began with, its reference.
//!
//! The loss of a pair is `-ln s(beta m)`, where `s` is the logistic function, and `m` by how much the
//! answers' log-probabilities, summed over their tokens, are further apart than the reference had
//! them. An engine knows sums of weighted likelihoods; the gradient of this loss is one, with the
//! weight `beta s(-beta m)` on the chosen answer's tokens and its negative on the other's. So a first
//! pass finds `m`, a second learns, and no operation knows of pairs. The reference's sums are found
//! once, before the first step, and lie beside the checkpoints: no second model is ever in memory.

use serde::{Deserialize, Serialize};

use crate::engine::{Batch, Engine, EngineError, LossSum, Pass};

/// How sharply two answers are told apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dpo {
    pub beta: f64,
}

/// The summed log-probabilities of a pair's answers.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Sums {
    chosen: f64,
    rejected: f64,
}

/// What the model that training began with has for each row.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) train: Vec<Sums>,
    /// In the order of the fixed set.
    pub(crate) validation: Vec<Sums>,
}

/// Sums over pairs of what is told of them, under the names that TRL has.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rewards {
    n: f64,
    loss: f64,
    chosen: f64,
    rejected: f64,
    right: f64,
    logps_chosen: f64,
    logps_rejected: f64,
}

impl Rewards {
    pub(crate) fn loss(&self) -> LossSum {
        LossSum {
            nll: self.loss,
            weight: self.n,
        }
    }

    /// Means by name; nothing without pairs.
    pub(crate) fn metrics(&self) -> Vec<(&'static str, f64)> {
        let means = [
            ("rewards/chosen", self.chosen),
            ("rewards/rejected", self.rejected),
            ("rewards/accuracies", self.right),
            ("rewards/margins", self.chosen - self.rejected),
            ("logps/chosen", self.logps_chosen),
            ("logps/rejected", self.logps_rejected),
        ];
        let means = means.into_iter().filter(|_| self.n > 0.0);
        means.map(|(name, sum)| (name, sum / self.n)).collect()
    }
}

impl Dpo {
    /// Takes a pair in, and returns the weight of its answers' tokens.
    pub(crate) fn judge(self, now: Sums, reference: Sums, rewards: &mut Rewards) -> f64 {
        let chosen = self.beta * (now.chosen - reference.chosen);
        let rejected = self.beta * (now.rejected - reference.rejected);
        let margin = chosen - rejected;
        rewards.n += 1.0;
        rewards.loss += softplus(-margin);
        rewards.chosen += chosen;
        rewards.rejected += rejected;
        rewards.right += f64::from(u8::from(margin > 0.0));
        rewards.logps_chosen += now.chosen;
        rewards.logps_rejected += now.rejected;
        self.beta / (1.0 + margin.exp())
    }

    /// Adds to the gradients of a batch of pairs, of which the reference has these sums.
    pub(crate) fn accumulate(
        self,
        engine: &mut dyn Engine,
        mut batch: Batch,
        pass: Pass,
        reference: impl Iterator<Item = Sums>,
        rewards: &mut Rewards,
    ) -> Result<(), EngineError> {
        let now = sums(engine, &batch)?;
        let weights: Vec<f64> = now
            .into_iter()
            .zip(reference)
            .map(|(now, reference)| self.judge(now, reference, rewards))
            .collect();
        for (place, weight) in batch.weights.iter_mut().enumerate() {
            let sign = if batch.starts[place] == 0 { 1.0 } else { -1.0 };
            *weight *= (sign * weights[place / batch.len]) as f32;
        }
        engine.accumulate(&batch, pass).map(drop)
    }
}

/// Returns the sums of each row: the chosen answer's piece begins it, the other's does not.
pub(crate) fn sums(engine: &mut dyn Engine, batch: &Batch) -> Result<Vec<Sums>, EngineError> {
    let scores = engine.evaluate(batch)?;
    let mut sums = vec![Sums::default(); batch.n_rows];
    for (place, score) in scores.iter().enumerate() {
        let sum = &mut sums[place / batch.len];
        match (batch.weights[place] != 0.0, batch.starts[place]) {
            (false, _) => (),
            (true, 0) => sum.chosen -= f64::from(score.nll),
            (true, _) => sum.rejected -= f64::from(score.nll),
        }
    }
    Ok(sums)
}

/// `ln(1 + exp(x))`, for any `x`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        CpuEngine, EngineSettings,
        config::{ModelConfig, Preset},
        engine::Tensors,
    };

    const PASS: Pass = Pass { seed: 1, step: 1 };
    const DPO: Dpo = Dpo { beta: 0.5 };

    fn judged(dpo: Dpo, now: [f64; 2], reference: [f64; 2]) -> (f64, Rewards) {
        let sums = |[chosen, rejected]: [f64; 2]| Sums { chosen, rejected };
        let mut rewards = Rewards::default();
        let weight = dpo.judge(sums(now), sums(reference), &mut rewards);
        (weight, rewards)
    }

    #[test]
    fn without_a_margin_the_loss_is_the_logarithm_of_two() {
        let (weight, rewards) = judged(DPO, [-3.0, -7.0], [-3.0, -7.0]);
        assert_eq!(
            rewards.loss(),
            LossSum {
                nll: 2.0_f64.ln(),
                weight: 1.0
            }
        );
        assert_eq!(weight, 0.25);
        let metrics = rewards.metrics();
        let of = |name: &str| metrics.iter().find(|(known, _)| *known == name).unwrap().1;
        assert_eq!((of("logps/chosen"), of("logps/rejected")), (-3.0, -7.0));
        assert_eq!(
            (of("rewards/accuracies"), of("rewards/margins")),
            (0.0, 0.0)
        );
    }

    #[test]
    fn a_margin_beyond_all_measure_is_no_loss_and_its_opposite_a_finite_one() {
        let (weight, rewards) = judged(DPO, [0.0, -1e6], [0.0, 0.0]);
        assert_eq!((weight, rewards.loss().nll), (0.0, 0.0));
        let (weight, rewards) = judged(DPO, [-1e6, 0.0], [0.0, 0.0]);
        assert_eq!((weight, rewards.loss().nll), (0.5, 5e5));
    }

    fn engine() -> CpuEngine {
        let config = ModelConfig {
            context: 8,
            d_model: 16,
            n_layers: 1,
            n_heads: 2,
            n_kv_heads: 1,
            d_ff: 24,
            ..Preset::LlamaTiny.config(13)
        };
        CpuEngine::new(config, EngineSettings::default(), 3, 1).unwrap()
    }

    /// Two pairs: a prompt of two tokens, and answers of three and two, or of one and four.
    fn pairs() -> Batch {
        let mut batch = Batch {
            n_rows: 2,
            len: 9,
            ..Batch::default()
        };
        for (row, lens) in [[4, 3], [2, 5]].into_iter().enumerate() {
            let mut start = 0;
            for len in lens {
                for idx in 0..len {
                    let id = |at: usize| ((7 * row + 3 * start + 5 * at) % 13) as u16;
                    batch.tokens.push(id(idx));
                    batch.targets.push(id(idx + 1));
                    batch.weights.push(f32::from(u8::from(idx > 0)));
                    batch.positions.push(idx as u16);
                    batch.starts.push(start as u16);
                }
                start += len;
            }
            for place in start..9 {
                batch.tokens.push(0);
                batch.targets.push(0);
                batch.weights.push(0.0);
                batch.positions.push(0);
                batch.starts.push(place as u16);
            }
        }
        batch
    }

    fn loss(engine: &mut CpuEngine, reference: &[Sums]) -> f64 {
        let mut rewards = Rewards::default();
        for (now, reference) in sums(engine, &pairs()).unwrap().into_iter().zip(reference) {
            DPO.judge(now, *reference, &mut rewards);
        }
        rewards.loss().nll
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let mut engine = engine();
        let mut reference = sums(&mut engine, &pairs()).unwrap();
        // As if the reference had thought otherwise, so that the pairs weigh differently.
        reference[0].chosen -= 1.5;
        reference[1].rejected -= 0.7;
        let mut rewards = Rewards::default();
        let known = reference.iter().copied();
        DPO.accumulate(&mut engine, pairs(), PASS, known, &mut rewards)
            .unwrap();
        assert!((rewards.loss().nll - loss(&mut engine, &reference)).abs() < 1e-9);
        let mut gradients = Vec::new();
        let mut keep =
            |name: &str, gradient: &mut [f32]| gradients.push((name.to_owned(), gradient.to_vec()));
        engine.each_gradient(&mut keep).unwrap();
        let weights: Tensors = engine.weights().unwrap();
        for (name, gradient) in gradients {
            let largest = gradient.iter().fold(0.0, |m: f32, x| m.max(x.abs()));
            for idx in [0, gradient.len() / 2, gradient.len() - 1] {
                let mut at = |step: f32| {
                    let mut moved = weights.clone();
                    moved.get_mut(&name).unwrap().data[idx] += step;
                    engine.load_weights(&moved).unwrap();
                    loss(&mut engine, &reference)
                };
                let (near, far) = (at(5e-3) - at(-5e-3), at(1e-2) - at(-1e-2));
                let slope = (8.0 * near - far) / (12.0 * 5e-3);
                let off = (slope - f64::from(gradient[idx])).abs();
                assert!(
                    off < 5e-3 * f64::from(largest) + 2e-4,
                    "{name} {idx}: {slope} {}",
                    gradient[idx]
                );
            }
        }
    }
}
