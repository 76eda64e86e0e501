//! The law: how low a loss gets with so many weights and so many tokens.
//!
//! L(N, D) = E + A / N^a + B / D^b: what no model learns of this text, what one of finite size misses,
//! and what too short a training leaves. The form is that of Hoffmann et al. (2022). A training is
//! taken to cost C = 6 N D operations.

use serde::Serialize;

use super::exact::{exp, ln};

/// Operations for a weight and a token: two forward, four backward.
const OPERATIONS: f64 = 6.0;

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Law {
    #[serde(rename = "E")]
    pub floor: f64,
    #[serde(rename = "A")]
    pub of_weights: f64,
    #[serde(rename = "B")]
    pub of_tokens: f64,
    #[serde(rename = "a")]
    pub weights_power: f64,
    #[serde(rename = "b")]
    pub tokens_power: f64,
}

/// A size of a model and of a training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scale {
    pub weights: f64,
    pub tokens: f64,
}

impl Scale {
    /// Returns the operations that the training takes.
    pub fn compute(&self) -> f64 {
        OPERATIONS * self.weights * self.tokens
    }
}

impl Law {
    pub fn loss(&self, at: Scale) -> f64 {
        self.floor
            + self.of_weights * exp(-self.weights_power * ln(at.weights))
            + self.of_tokens * exp(-self.tokens_power * ln(at.tokens))
    }

    /// Returns how to spend a budget of operations best; `None` where one of the powers is none, so
    /// that all of it would go to the other.
    pub fn best(&self, compute: f64) -> Option<Scale> {
        let weights = self.best_weights(compute);
        let tokens = compute / OPERATIONS / weights;
        let is_sane = |n: f64| (1.0..1e30).contains(&n);
        (is_sane(weights) && is_sane(tokens)).then_some(Scale { weights, tokens })
    }

    /// Returns the weights that are best for a budget: none, or without end, where a power is none.
    pub(super) fn best_weights(&self, compute: f64) -> f64 {
        let (a, b) = (self.weights_power, self.tokens_power);
        let gains = (a * self.of_weights, b * self.of_tokens);
        if gains.0 <= 0.0 {
            return 0.0;
        }
        if gains.1 <= 0.0 {
            return f64::INFINITY;
        }
        // Where a A / N^a = b B / D^b, with D = C / 6 N.
        let budget = ln(compute / OPERATIONS);
        exp((ln(gains.0) - ln(gains.1) + b * budget) / (a + b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHINCHILLA: Law = Law {
        floor: 1.69,
        of_weights: 406.4,
        of_tokens: 410.7,
        weights_power: 0.34,
        tokens_power: 0.28,
    };

    #[test]
    fn the_best_size_for_a_budget_beats_its_neighbours_at_the_same_price() {
        for budget in [1e12, 1e18, 1e24] {
            let best = CHINCHILLA.best(budget).unwrap();
            assert!((best.compute() / budget - 1.0).abs() < 1e-9);
            for factor in [0.8, 0.97, 1.03, 1.3] {
                let other = Scale {
                    weights: best.weights * factor,
                    tokens: best.tokens / factor,
                };
                assert!(CHINCHILLA.loss(best) < CHINCHILLA.loss(other));
            }
        }
    }

    #[test]
    fn a_law_that_tokens_do_not_move_has_no_best_size() {
        let law = Law {
            tokens_power: 0.0,
            ..CHINCHILLA
        };
        assert_eq!(law.best(1e15), None);
    }
}
