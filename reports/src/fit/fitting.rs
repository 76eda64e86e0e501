//! What follows from a law and from the others that its runs could have come from.
//!
//! Each answer is computed from both in the same way: by the law, and again by all the others for the
//! interval. Errors are in percent of what a loss is.

use serde::Serialize;

use super::{
    exact::{exp, ln},
    law::{Law, Scale},
    levels::levels,
    measure::Told,
    search::{Frame, Measured, POWER_MAX},
    spread::{Interval, Spread, on_all_cores},
};

#[derive(Clone, Debug, Serialize)]
pub struct Parameter {
    pub name: &'static str,
    pub about: &'static str,
    pub value: f64,
    pub interval: Interval,
    /// Whether the runs say what it is; of A and B nobody asks.
    pub is_determined: Option<bool>,
}

/// A run and what the law says of it. Errors are in percent of its loss.
#[derive(Clone, Debug, Serialize)]
pub struct FittedRun {
    #[serde(flatten)]
    pub told: Told,
    pub fitted: f64,
    pub error: f64,
    /// By a law that is fitted to all others.
    pub error_unseen: f64,
}

/// How well the law tells its runs, in percent of their losses.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quality {
    pub error_rms: f64,
    pub error_max: f64,
    pub error_unseen_rms: f64,
    pub error_unseen_max: f64,
}

/// The best size and training for so many operations.
#[derive(Clone, Debug, Serialize)]
pub struct Budget {
    pub compute: f64,
    /// None where weights or tokens gain nothing.
    pub best: Option<Scale>,
    pub loss: Option<f64>,
    pub weights: Interval,
    pub tokens: Interval,
    /// Whether the best size or its tokens are beyond all runs.
    pub is_beyond: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct Prediction {
    /// The run that was left out for it.
    pub run: Option<String>,
    #[serde(flatten)]
    pub at: Scale,
    pub loss: f64,
    pub interval: Interval,
    /// How many times beyond all runs its weights or tokens are; 1 within them.
    pub beyond: f64,
    pub came_out: Option<f64>,
    /// Of the prediction, in percent of what came out.
    pub error: Option<f64>,
    pub is_inside: Option<bool>,
}

/// The law of some runs, and others that could be theirs.
pub(super) struct Fitting {
    measured: Vec<Measured>,
    pub(super) law: Law,
    spread: Spread,
    /// By run, the law of all others.
    unseen: Vec<Law>,
}

impl Fitting {
    pub(super) fn of(told: &[Told]) -> Fitting {
        let measured = told.iter().map(|run| Measured {
            at: run.at,
            loss: run.loss,
            count: 1.0,
        });
        let measured: Vec<Measured> = measured.collect();
        let frame = Frame::of(&measured);
        let at = frame.fit(&measured).at;
        let unseen = on_all_cores(measured.len(), |idx| {
            let mut others = measured.clone();
            others.remove(idx);
            frame.law(&frame.fit_near(&others, at).at)
        });
        let errors = measured.iter().zip(&unseen);
        let errors = errors.map(|(run, law)| ln(run.loss) - ln(law.loss(run.at)));
        Fitting {
            law: frame.law(&at),
            spread: Spread::of(&frame, &measured, at, errors.collect()),
            measured,
            unseen,
        }
    }

    pub(super) fn parameters(&self) -> Vec<Parameter> {
        let parameter = |name, about, told: fn(&Law) -> f64| Parameter {
            name,
            about,
            value: told(&self.law),
            interval: self.spread.of_laws(told),
            is_determined: None,
        };
        let judged = |parameter: Parameter| Parameter {
            is_determined: Some(is_determined(&parameter)),
            ..parameter
        };
        vec![
            judged(parameter("E", "what no model learns of this text", |law| {
                law.floor
            })),
            judged(parameter("a", "the power of weights", |law| {
                law.weights_power
            })),
            judged(parameter("b", "the power of tokens", |law| {
                law.tokens_power
            })),
            parameter("A", "goes with a", |law| law.of_weights),
            parameter("B", "goes with b", |law| law.of_tokens),
        ]
    }

    pub(super) fn runs(&self, told: Vec<Told>) -> Vec<FittedRun> {
        let runs = told.into_iter().zip(&self.unseen);
        let run = |(told, unseen): (Told, &Law)| {
            let fitted = self.law.loss(told.at);
            FittedRun {
                fitted,
                error: error(fitted, told.loss),
                error_unseen: error(unseen.loss(told.at), told.loss),
                told,
            }
        };
        runs.map(run).collect()
    }

    pub(super) fn budget(&self, compute: f64) -> Budget {
        let best = self.law.best(compute);
        let weights = self.spread.of_laws(|law| law.best_weights(compute));
        let all_tokens = compute
            / Scale {
                weights: 1.0,
                tokens: 1.0,
            }
            .compute();
        Budget {
            compute,
            best,
            loss: best.map(|best| self.law.loss(best)),
            weights,
            tokens: Interval {
                from: all_tokens / weights.to,
                to: all_tokens / weights.from,
            },
            is_beyond: best.is_none_or(|best| self.beyond(best) > 1.0),
        }
    }

    /// Returns the budgets of the runs: their own where they are few, as sweeps at equal compute have
    /// them; else what the middle size takes for each number of tokens; else some between the ends.
    pub(super) fn own_budgets(&self) -> (&'static str, Vec<f64>) {
        const BUDGETS_MAX: usize = 8;
        let own = levels(self.measured.iter().map(|run| run.at.compute()));
        if own.len() <= BUDGETS_MAX {
            return ("of the runs", own);
        }
        let n_runs = self.measured.len() as f64;
        let logarithms = self.measured.iter().map(|run| ln(run.at.weights));
        let weights = exp(logarithms.sum::<f64>() / n_runs);
        let trainings = levels(self.measured.iter().map(|run| run.at.tokens));
        if trainings.len() <= BUDGETS_MAX {
            let compute = |tokens| Scale { weights, tokens }.compute();
            let budgets = trainings.into_iter().map(compute).collect();
            return ("of the middle size for each D", budgets);
        }
        let (first, last) = (ln(own[0]), ln(own[own.len() - 1]));
        let share = |idx: usize| idx as f64 / (BUDGETS_MAX - 1) as f64;
        let budgets = (0..BUDGETS_MAX).map(|idx| exp(first + (last - first) * share(idx)));
        (
            "between the least and the most of the runs",
            budgets.collect(),
        )
    }

    pub(super) fn prediction(&self, at: Scale, came_out: Option<&Told>) -> Prediction {
        let loss = self.law.loss(at);
        let interval = self.spread.of_run(at);
        Prediction {
            run: came_out.map(|told| told.run.clone()),
            at,
            loss,
            interval,
            beyond: self.beyond(at),
            came_out: came_out.map(|told| told.loss),
            error: came_out.map(|told| error(loss, told.loss)),
            is_inside: came_out.map(|told| interval.holds(told.loss)),
        }
    }

    /// Returns how many times beyond all runs a scale is, by what is farther of weights and tokens.
    fn beyond(&self, at: Scale) -> f64 {
        let factor = |value: f64, of: fn(&Measured) -> f64| {
            let all = || self.measured.iter().map(of);
            let (least, most) = (
                all().fold(f64::INFINITY, f64::min),
                all().fold(0.0, f64::max),
            );
            f64::max(value / most, least / value)
        };
        let weights = factor(at.weights, |run| run.at.weights);
        let tokens = factor(at.tokens, |run| run.at.tokens);
        // Within a percent is not beyond.
        let beyond = f64::max(weights, tokens);
        if beyond < 1.01 { 1.0 } else { beyond }
    }
}

/// Whether an interval's ends are less than three times apart, and neither is where the search ends.
fn is_determined(parameter: &Parameter) -> bool {
    const RATIO_MAX: f64 = 3.0;
    let Interval { from, to } = parameter.interval;
    let is_at_end = parameter.name != "E" && to > 0.999 * POWER_MAX;
    from > 0.0 && to / from < RATIO_MAX && !is_at_end
}

pub(super) fn quality(runs: &[FittedRun]) -> Quality {
    let rms = |of: fn(&FittedRun) -> f64| {
        let squares: f64 = runs.iter().map(|run| of(run) * of(run)).sum();
        (squares / runs.len() as f64).sqrt()
    };
    let max = |of: fn(&FittedRun) -> f64| runs.iter().map(|run| of(run).abs()).fold(0.0, f64::max);
    Quality {
        error_rms: rms(|run| run.error),
        error_max: max(|run| run.error),
        error_unseen_rms: rms(|run| run.error_unseen),
        error_unseen_max: max(|run| run.error_unseen),
    }
}

/// Returns the error of a loss in percent of what it is.
fn error(told: f64, loss: f64) -> f64 {
    (told / loss - 1.0) * 100.0
}
