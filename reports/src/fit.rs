//! A law of loss, fitted to runs of several sizes and budgets, as a value.
//!
//! [`Fit::of`] takes a comparison apart into runs that tell their weights, tokens and loss and those
//! that do not, fits L(N, D) = E + A/N^a + B/D^b to the former, and says what follows: how sure each
//! parameter is, how well the law tells runs it has not seen, which size is best for a budget, and what
//! a run that nobody made would end at. Everything comes with the interval that nine cases of ten lie
//! in, and the same runs give the same digits, whatever their order and the machine.

mod chance;
mod descend;
mod exact;
mod fitting;
mod law;
mod left_out;
mod levels;
mod measure;
#[cfg(test)]
mod planted;
mod search;
mod spread;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use fitting::{Budget, FittedRun, Parameter, Prediction, Quality};
pub use law::{Law, Scale};
pub use left_out::LeftOut;
pub use measure::Told;
pub use spread::Interval;

use crate::{Error, comparison::Comparison, number::counted};
use descend::N;
use fitting::{Fitting, quality};
use levels::{is_same, levels};
use measure::Measures;

/// What is asked of a law beyond its runs.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// In operations; those of the runs when empty.
    pub budgets: Vec<f64>,
    pub predictions: Vec<Ask>,
}

#[derive(Clone, Debug)]
pub enum Ask {
    Of(Scale),
    /// A run by its id; it is not fitted.
    Run(String),
}

#[derive(Clone, Debug, Serialize)]
pub struct Fit {
    /// The metric that is the loss, as `STAGE.METRIC`.
    pub metric: String,
    pub law: Law,
    pub parameters: Vec<Parameter>,
    /// By weights, then tokens.
    pub runs: Vec<FittedRun>,
    pub left_out: Vec<LeftOut>,
    pub quality: Quality,
    pub budgets: Vec<Budget>,
    /// Whose budgets they are.
    pub budgets_of: &'static str,
    pub predictions: Vec<Prediction>,
}

/// Fewer runs, or fewer different sizes or numbers of tokens, leave a parameter open.
const RUNS_MIN: usize = N + 1;
const LEVELS_MIN: usize = 3;
const TAKES: &str = "six runs or more, of three sizes and three numbers of tokens";

impl Fit {
    pub fn of(comparison: &Comparison, wanted: &Wanted) -> Result<Fit, Error> {
        let Measures { metric, runs } = Measures::of(comparison);
        let ids = comparison.runs.iter().map(|report| report.run.id.as_str());
        let is_asked = |id: &str| {
            let mut asked = wanted.predictions.iter();
            asked.any(|ask| matches!(ask, Ask::Run(run) if run == id))
        };
        let (asked, fitted): (Vec<_>, Vec<_>) = ids.zip(runs).partition(|(id, _)| is_asked(id));
        let (mut told, mut left_out) = (Vec::new(), Vec::new());
        for (_, run) in fitted {
            match run {
                Ok(run) => told.push(run),
                Err(run) => left_out.push(run),
            }
        }
        check(&told, &left_out)?;
        // Sums depend on their order in the last digit, and nobody means anything by the order of runs.
        // Numbers above zero are ordered as their bits are.
        told.sort_by_key(|run| [run.at.weights, run.at.tokens, run.loss].map(f64::to_bits));
        let fitting = Fitting::of(&told);
        let predictions = wanted.predictions.iter().map(|ask| match ask {
            Ask::Of(at) => Ok(fitting.prediction(*at, None)),
            Ask::Run(id) => {
                let found = asked.iter().find(|(other, _)| other == id);
                let (_, run) = found.ok_or(Error::NoRuns)?;
                let run = run
                    .as_ref()
                    .map_err(|why| Error::Unpredictable(why.clone()))?;
                Ok(fitting.prediction(run.at, Some(run)))
            }
        });
        let predictions = predictions.collect::<Result<Vec<_>, Error>>()?;
        let runs = fitting.runs(told);
        let (budgets_of, budgets) = match wanted.budgets.as_slice() {
            [] => fitting.own_budgets(),
            asked => ("asked for", asked.to_vec()),
        };
        Ok(Fit {
            metric,
            law: fitting.law,
            parameters: fitting.parameters(),
            quality: quality(&runs),
            budgets: budgets
                .into_iter()
                .map(|compute| fitting.budget(compute))
                .collect(),
            budgets_of,
            runs,
            left_out,
            predictions,
        })
    }

    /// Returns the different sizes of the runs, smallest first.
    pub fn sizes(&self) -> Vec<f64> {
        levels(self.runs.iter().map(|run| run.told.at.weights))
    }

    /// Returns the number of a size among all of them.
    pub fn size_idx(&self, weights: f64) -> usize {
        let sizes = self.sizes();
        sizes
            .iter()
            .take_while(|size| !is_same(**size, weights))
            .count()
    }
}

fn check(told: &[Told], left_out: &[LeftOut]) -> Result<(), Error> {
    let n_sizes = levels(told.iter().map(|run| run.at.weights)).len();
    let n_trainings = levels(told.iter().map(|run| run.at.tokens)).len();
    if told.len() >= RUNS_MIN && n_sizes >= LEVELS_MIN && n_trainings >= LEVELS_MIN {
        return Ok(());
    }
    let found = match told.len() {
        0 => "no run here tells its weights, tokens and loss".to_owned(),
        n_runs => format!(
            "here {} {}, of {} and {} of tokens",
            if n_runs == 1 { "is" } else { "are" },
            counted(n_runs, "run"),
            counted(n_sizes, "size"),
            counted(n_trainings, "number"),
        ),
    };
    Err(Error::TooFewRuns {
        wanted: TAKES,
        found,
        left_out: left_out.to_vec(),
    })
}
