//! Fits the law to what was measured.
//!
//! What is made least is Huber's loss of the errors of log L, so that a run counts by how many percent
//! it is off, and one that went wrong pulls no harder for being far off. The three terms are fitted by
//! their logarithms, at the middle of the runs: far from them (at one weight, one token) A and B say
//! little and hang together with their powers, which makes a valley that no minimizer likes.
//! There are several valleys all the same, so it descends from a fixed grid of starts.

use super::{
    descend::{Bounds, Found, N, Residual, Vector, descend},
    exact::{exp, ln},
    law::{Law, Scale},
};

/// A run as the law sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Measured {
    pub(super) at: Scale,
    pub(super) loss: f64,
    /// How much it counts.
    pub(super) count: f64,
}

/// Errors of log L up to here count by their squares.
const SQUARE_MAX: f64 = 0.01;
/// No power is searched beyond this.
pub(super) const POWER_MAX: f64 = 5.0;
/// A term is searched down to this share of the lowest loss: less is as good as nothing.
const SHARE_MIN: f64 = 1e-3;

/// The middle of the runs and the bounds of the search, the same for all fits to parts of them.
#[derive(Clone)]
pub(super) struct Frame {
    weights: f64,
    tokens: f64,
    lowest: f64,
    bounds: Bounds,
}

impl Frame {
    pub(super) fn of(runs: &[Measured]) -> Frame {
        let n_runs = runs.len() as f64;
        let middle =
            |of: fn(&Measured) -> f64| runs.iter().map(|run| ln(of(run))).sum::<f64>() / n_runs;
        let losses = || runs.iter().map(|run| ln(run.loss));
        let lowest = losses().fold(f64::INFINITY, f64::min);
        let highest = losses().fold(f64::NEG_INFINITY, f64::max);
        let low = lowest + ln(SHARE_MIN);
        Frame {
            weights: middle(|run| run.at.weights),
            tokens: middle(|run| run.at.tokens),
            lowest,
            bounds: Bounds {
                square_max: SQUARE_MAX,
                low: [low, low, low, 0.0, 0.0],
                high: [lowest, highest, highest, POWER_MAX, POWER_MAX],
            },
        }
    }

    /// Takes errors so many times as large for small ones.
    pub(super) fn widened(mut self, factor: f64) -> Frame {
        self.bounds.square_max *= factor;
        self
    }

    pub(super) fn law(&self, at: &Vector) -> Law {
        let &[floor, of_weights, of_tokens, weights_power, tokens_power] = at;
        // Where the search ends there is no term.
        let term = |idx: usize, logarithm: f64| match at[idx] <= self.bounds.low[idx] {
            true => 0.0,
            false => exp(logarithm),
        };
        Law {
            floor: term(0, floor),
            of_weights: term(1, of_weights + weights_power * self.weights),
            of_tokens: term(2, of_tokens + tokens_power * self.tokens),
            weights_power,
            tokens_power,
        }
    }

    /// Fits the law to runs, from all starts.
    pub(super) fn fit(&self, runs: &[Measured]) -> Found {
        self.fit_from(runs, self.starts())
    }

    /// Fits the law to runs from where it was found for others, and from a few starts.
    pub(super) fn fit_near(&self, runs: &[Measured], near: Vector) -> Found {
        const EVERY: usize = 23;
        let starts = self.starts().into_iter().step_by(EVERY);
        self.fit_from(runs, std::iter::once(near).chain(starts).collect())
    }

    /// Descends a little from each start, and from the best of these places to the ground.
    fn fit_from(&self, runs: &[Measured], starts: Vec<Vector>) -> Found {
        const STEPS_FIRST: usize = 12;
        const STEPS_MAX: usize = 2_000;
        const N_BEST: usize = 4;
        let logarithms: Vec<[f64; 4]> = runs.iter().map(|run| self.logarithms(run)).collect();
        let residuals = |at: Vector| logarithms.iter().map(move |run| residual(run, &at));
        let down = |start: Vector, steps: usize| descend(residuals, &self.bounds, start, steps);
        let mut first: Vec<Found> = starts
            .into_iter()
            .map(|start| down(start, STEPS_FIRST))
            .collect();
        first.sort_by(|a, b| a.cost.total_cmp(&b.cost));
        let best = first
            .iter()
            .take(N_BEST)
            .map(|found| down(found.at, STEPS_MAX));
        let best = best.min_by(|a, b| a.cost.total_cmp(&b.cost));
        best.unwrap_or(Found {
            at: self.bounds.low,
            cost: f64::INFINITY,
        })
    }

    /// Weights and tokens from the middle, the loss, how much it counts.
    fn logarithms(&self, run: &Measured) -> [f64; 4] {
        [
            ln(run.at.weights) - self.weights,
            ln(run.at.tokens) - self.tokens,
            ln(run.loss),
            run.count,
        ]
    }

    /// Returns starts that share the loss of the middle out in several ways, with several powers.
    fn starts(&self) -> Vec<Vector> {
        let mut starts = Vec::new();
        for floor in [0.2, 0.6, 0.9] {
            for share in [0.2, 0.5, 0.8] {
                for weights_power in [0.1, 0.35, 0.8, 1.6] {
                    for tokens_power in [0.1, 0.35, 0.8, 1.6] {
                        starts.push([
                            self.lowest + ln(floor),
                            self.lowest + ln((1.05 - floor) * share),
                            self.lowest + ln((1.05 - floor) * (1.0 - share)),
                            weights_power,
                            tokens_power,
                        ]);
                    }
                }
            }
        }
        starts
    }
}

/// The error of log L and its slopes.
fn residual(run: &[f64; 4], at: &Vector) -> Residual {
    let &[weights, tokens, loss, weight] = run;
    let terms = [at[0], at[1] - at[3] * weights, at[2] - at[4] * tokens];
    let largest = terms.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let parts = terms.map(|term| exp(term - largest));
    let sum: f64 = parts.iter().sum();
    let shares = parts.map(|part| part / sum);
    let slopes: [f64; N] = [
        shares[0],
        shares[1],
        shares[2],
        -weights * shares[1],
        -tokens * shares[2],
    ];
    Residual {
        size: largest + ln(sum) - loss,
        slopes,
        weight,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::planted::{LAWS, grid, noisy};

    fn fitted(runs: &[Measured]) -> Law {
        let frame = Frame::of(runs);
        frame.law(&frame.fit(runs).at)
    }

    #[track_caller]
    fn assert_near(law: Law, wanted: Law, share: f64) {
        let pairs = [
            (law.floor, wanted.floor),
            (law.weights_power, wanted.weights_power),
            (law.tokens_power, wanted.tokens_power),
        ];
        for (found, wanted) in pairs {
            assert!(
                (found / wanted - 1.0).abs() < share,
                "{law:?} is not {wanted:?}"
            );
        }
    }

    #[test]
    fn a_planted_law_is_recovered_from_what_it_says() {
        for law in LAWS {
            let found = fitted(&grid(law));
            assert_near(found, law, 1e-4);
            assert!((found.of_weights / law.of_weights - 1.0).abs() < 1e-3);
            assert!((found.of_tokens / law.of_tokens - 1.0).abs() < 1e-3);
        }
    }

    #[test]
    fn a_planted_law_is_recovered_nearly_from_noisy_runs() {
        for (seed, law) in (1..).zip(LAWS) {
            assert_near(fitted(&noisy(law, 0.001, seed)), law, 0.2);
        }
    }

    #[test]
    fn one_run_that_went_wrong_moves_the_law_little() {
        let law = LAWS[0];
        let mut runs = noisy(law, 0.001, 5);
        runs[7].loss *= 1.6;
        assert_near(fitted(&runs), law, 0.3);
    }

    #[test]
    fn the_same_runs_in_another_order_are_the_same_law() {
        let mut runs = noisy(LAWS[1], 0.003, 9);
        let before = fitted(&runs);
        runs.reverse();
        runs.swap(3, 11);
        assert_near(fitted(&runs), before, 1e-4);
    }
}
