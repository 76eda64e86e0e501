//! How fast this machine trains: as the trainings did that have been here.
//!
//! Nothing is kept for it but what every training records of itself, and only runs of this host count,
//! since a home may move. A speed hangs on a model's size, so the training of the likest size speaks,
//! by its tokens a second. Where there was none, it is a share of the peak, which is measured now.

use std::{cell::OnceCell, num::NonZero, thread};

use tinylm_model::{config::Precision, peak::measured_peak};
use tinylm_registry::{Registry, RunQuery};
use tinylm_reports::thousands;

use crate::{host::host_name, project::Project};

/// The share of the peak of a first training, of which nobody knows yet.
const SHARE: f64 = 0.45;

/// Runs that are asked, the newest.
const RUNS: usize = 50;

/// Speeds that trainings on this machine can be expected to have.
pub(crate) struct Speed {
    trainings: Vec<Training>,
    peak: OnceCell<Option<f64>>,
}

/// A training that was here.
struct Training {
    n_parameters: f64,
    tokens_per_second: f64,
    name: String,
}

/// An expectation, and what it rests on.
pub(crate) struct Expected {
    pub(crate) tokens_per_second: f64,
    pub(crate) told: String,
}

impl Speed {
    pub(crate) fn of(project: &Project) -> Self {
        let registry = project.registry().ok();
        let trainings = registry.and_then(|registry| trainings(&registry));
        Self {
            trainings: trainings.unwrap_or_default(),
            peak: OnceCell::new(),
        }
    }

    /// Returns what a training of a model of this size can be expected to do.
    pub(crate) fn expected(&self, n_parameters: f64, flops_per_token: u64) -> Option<Expected> {
        let distance = |one: &&Training| (one.n_parameters / n_parameters).ln().abs();
        let likest = self.trainings.iter();
        let likest = likest.min_by(|a, b| distance(a).total_cmp(&distance(b)));
        match likest {
            Some(one) => Some(Expected {
                tokens_per_second: one.tokens_per_second * one.n_parameters / n_parameters,
                told: format!(
                    "as {} did {} tokens a second with {} parameters",
                    one.name,
                    thousands(one.tokens_per_second as u64),
                    thousands(one.n_parameters as u64)
                ),
            }),
            None => self.guessed(flops_per_token),
        }
    }

    fn guessed(&self, flops_per_token: u64) -> Option<Expected> {
        let n_threads = thread::available_parallelism().map_or(1, NonZero::get);
        let peak = (*self
            .peak
            .get_or_init(|| measured_peak(n_threads, Precision::F32)))?;
        let (share, gigaflops) = (100.0 * SHARE, peak / 1e9);
        Some(Expected {
            tokens_per_second: peak * SHARE / flops_per_token.max(1) as f64,
            told: format!(
                "a guess until a training has been here: {share:.0} % of {gigaflops:.0} GFLOP/s, measured now"
            ),
        })
    }
}

/// The trainings of this host on its processors, the newest first.
fn trainings(registry: &Registry) -> Option<Vec<Training>> {
    let query = RunQuery {
        limit: Some(RUNS),
        ..RunQuery::default()
    };
    let here = host_name();
    let mut found: Vec<Training> = Vec::new();
    for run in registry.runs(&query).ok()? {
        if run.host["name"] != here || run.device != "cpu" {
            continue;
        }
        for execution in registry.executions(&run.id).ok()? {
            let curve = registry.metric_series(&execution.id, "tokens_per_second", 500);
            let points = curve.ok()?.points;
            let mut speeds: Vec<f64> = points.iter().map(|point| point.value).collect();
            speeds.sort_by(f64::total_cmp);
            let finals = registry.final_numbers(&execution.id).ok()?;
            let size = finals.iter().find(|(name, ..)| name == "parameters");
            if let (Some(speed), Some((_, size, _))) = (speeds.get(speeds.len() / 2), size) {
                found.push(Training {
                    n_parameters: *size,
                    tokens_per_second: *speed,
                    name: format!("{}/{}", run.name, execution.stage),
                });
            }
        }
    }
    Some(found)
}
