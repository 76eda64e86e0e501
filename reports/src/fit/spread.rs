//! How far the law could be elsewhere: the same runs, weighed anew by chance, many times.
//!
//! A bootstrap that draws runs would now and then draw so few different ones that five parameters fit
//! anything; so each run keeps a weight of chance instead (Rubin 1981), and none is ever without. A
//! fit lies nearer to its runs than the law that made them does, the more so the fewer they are:
//! before they are weighed, the errors that it left are enlarged for that.

use serde::Serialize;

use super::{
    chance::Chance,
    descend::{N, Vector},
    exact::{exp, ln},
    law::{Law, Scale},
    search::{Frame, Measured},
};

/// Where something lies in nine cases of ten.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    pub from: f64,
    pub to: f64,
}

const SEED: u64 = 17;
const N_LAWS: usize = 400;
/// The share of cases outside an interval.
const OUTSIDE: f64 = 0.1;

/// Laws that the runs could have come from.
pub(super) struct Spread {
    pub(super) laws: Vec<Law>,
    /// The errors of log L of runs that a fit to the others was asked about.
    errors: Vec<f64>,
}

impl Spread {
    /// `errors` are those of each run by a fit to all others.
    pub(super) fn of(frame: &Frame, runs: &[Measured], at: Vector, errors: Vec<f64>) -> Spread {
        let law = frame.law(&at);
        let larger = enlargement(runs.len());
        let frame = frame.clone().widened(larger);
        let moved: Vec<Measured> = runs
            .iter()
            .map(|run| {
                let told = law.loss(run.at);
                let loss = told * exp(larger * (ln(run.loss) - ln(told)));
                Measured { loss, ..*run }
            })
            .collect();
        let weighed = |idx: usize| {
            let mut chance = Chance::new(SEED + (idx as u64) * 1_000_003);
            let runs = moved.iter().map(|run| Measured {
                count: chance.wait(),
                ..*run
            });
            let runs: Vec<Measured> = runs.collect();
            frame.law(&frame.fit_near(&runs, at).at)
        };
        Spread {
            laws: on_all_cores(N_LAWS, weighed),
            errors,
        }
    }

    /// Returns the interval of what the laws say.
    pub(super) fn of_laws(&self, told: impl Fn(&Law) -> f64) -> Interval {
        Interval::of(self.laws.iter().map(told).collect())
    }

    /// Returns the interval of a run that is yet to be made: the laws are not sure, and no run lies on its law.
    pub(super) fn of_run(&self, at: Scale) -> Interval {
        let mut chance = Chance::new(SEED);
        let losses = self.laws.iter().map(|law| {
            let error = self.errors[chance.below(self.errors.len())];
            law.loss(at) * exp(error)
        });
        Interval::of(losses.collect())
    }
}

/// Returns by how much the errors of a fit are too small to say how far the truth is: the parameters
/// have taken their share, and of what is left Student knows how badly so few runs tell it.
fn enlargement(n_runs: usize) -> f64 {
    /// Where 5 % lie above, for one run more than parameters, and more.
    const STUDENT: [f64; 8] = [6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860];
    const NORMAL: f64 = 1.645;
    let n_free = n_runs.saturating_sub(N).max(1);
    let student = match STUDENT.get(n_free - 1) {
        Some(&student) => student,
        None => NORMAL + 1.6 / n_free as f64,
    };
    (n_runs as f64 / n_free as f64).sqrt() * student / NORMAL
}

impl Interval {
    fn of(mut values: Vec<f64>) -> Interval {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * (values.len() - 1) as f64;
            let (low, high) = (values[place as usize], values[place.ceil() as usize]);
            match low == high {
                true => low,
                false => low + (high - low) * place.fract(),
            }
        };
        Interval {
            from: at(OUTSIDE / 2.0),
            to: at(1.0 - OUTSIDE / 2.0),
        }
    }

    pub(super) fn holds(&self, value: f64) -> bool {
        (self.from..=self.to).contains(&value)
    }
}

/// Returns `made(0)`, `made(1)`, ... in their order, each made on one of the cores.
pub(super) fn on_all_cores<T: Send>(n: usize, made: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
    let n_each = n.div_ceil(n_cores.min(n).max(1)).max(1);
    let made = &made;
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..n)
            .step_by(n_each)
            .map(|from| {
                let idxs = from..(from + n_each).min(n);
                scope.spawn(move || idxs.map(made).collect::<Vec<T>>())
            })
            .collect();
        let parts = parts.into_iter().map(|part| match part.join() {
            Ok(part) => part,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        parts.flatten().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::planted::{LAWS, noisy};

    fn spread(runs: &[Measured]) -> Spread {
        let frame = Frame::of(runs);
        let at = frame.fit(runs).at;
        let law = frame.law(&at);
        let errors = runs.iter().map(|run| ln(run.loss) - ln(law.loss(run.at)));
        Spread::of(&frame, runs, at, errors.collect())
    }

    /// Returns how many of the intervals hold what was planted, of each thing that is asked for.
    fn n_held(n_trials: u64, some: impl Fn(Vec<Measured>) -> Vec<Measured>) -> [u64; 4] {
        let asked: [fn(&Law) -> f64; 4] = [
            |law| law.floor,
            |law| law.weights_power,
            |law| law.tokens_power,
            |law| law.best_weights(1e13),
        ];
        let mut n_held = [0; 4];
        for seed in 0..n_trials {
            let law = LAWS[seed as usize % 2];
            let spread = spread(&some(noisy(law, 0.005, 100 + seed)));
            for (held, told) in n_held.iter_mut().zip(asked) {
                *held += u64::from(spread.of_laws(told).holds(told(&law)));
            }
        }
        n_held
    }

    #[test]
    fn nine_intervals_of_ten_hold_the_truth() {
        let n_held = n_held(30, |runs| runs);
        assert!(n_held.iter().all(|&held| held >= 24), "{n_held:?} of 30");
    }

    #[test]
    fn intervals_of_six_runs_are_wide_rather_than_wrong() {
        const SIX: [usize; 6] = [0, 3, 9, 11, 16, 19];
        let n_held = n_held(30, |runs| SIX.map(|idx| runs[idx]).to_vec());
        assert!(n_held.iter().all(|&held| held >= 20), "{n_held:?} of 30");
    }

    #[test]
    fn the_same_runs_have_the_same_intervals_to_the_bit() {
        let runs = noisy(LAWS[0], 0.005, 3);
        let floors = || spread(&runs).of_laws(|law| law.floor);
        assert_eq!(floors(), floors());
    }

    #[test]
    fn what_is_made_on_all_cores_keeps_its_order() {
        for n in [0, 1, 5, 64] {
            assert_eq!(on_all_cores(n, |idx| idx), (0..n).collect::<Vec<_>>());
        }
    }
}
