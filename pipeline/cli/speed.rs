//! The speed at which this machine trains: that of the trainings that have been here.
//!
//! Nothing is kept for it but what every training records of itself, and only runs of this host count,
//! since a home may move. A speed hangs on the numbers that are multiplied and on a model's size, so
//! of the trainings with the same precision the one of the likest size speaks, by its tokens a second.
//! Where there was none, it is a share of the peak, which is measured now.

use std::{cell::OnceCell, num::NonZero, thread};

use serde_json::Value;
use tinylm_model::{config::Precision, peak::measured_peak};
use tinylm_pipeline::settings::Choice;
use tinylm_registry::{Outcome, Registry, RunQuery};
use tinylm_reports::thousands;

use crate::{host::host_name, project::Project};

/// The share of the peak of a first training, of which nobody knows yet.
const SHARE: f64 = 0.45;

/// The metric that tells it.
const SPEED: &str = "tokens_per_second";

/// Runs that are asked, the newest.
const RUNS: usize = 50;

/// Speeds that trainings on this machine can be expected to have.
pub(crate) struct Speed {
    registry: Option<Registry>,
    trainings: Vec<Training>,
    peaks: [OnceCell<Option<f64>>; Precision::ALL.len()],
}

/// A training that was here.
struct Training {
    precision: Precision,
    n_parameters: f64,
    execution_id: String,
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
        let trainings = registry.as_ref().and_then(trainings);
        Self {
            trainings: trainings.unwrap_or_default(),
            registry,
            peaks: Default::default(),
        }
    }

    /// Returns what a training of a model of this size can be expected to do.
    pub(crate) fn expected(
        &self,
        precision: Precision,
        n_parameters: f64,
        flops_per_token: u64,
    ) -> Option<Expected> {
        self.remembered(precision, n_parameters)
            .or_else(|| self.guessed(precision, flops_per_token))
    }

    /// The same, if there has been a training to go by.
    pub(crate) fn remembered(&self, precision: Precision, n_parameters: f64) -> Option<Expected> {
        let distance = |one: &&Training| (one.n_parameters / n_parameters).ln().abs();
        let fitting = self.trainings.iter();
        let fitting = fitting.filter(|one| one.precision == precision);
        let one = fitting.min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
        let speed = tokens_per_second(self.registry.as_ref()?, &one.execution_id)?;
        Some(Expected {
            tokens_per_second: speed * one.n_parameters / n_parameters,
            told: format!(
                "as {} did {} tokens a second in {} with {} parameters",
                one.name,
                thousands(speed as u64),
                precision.word(),
                thousands(one.n_parameters as u64)
            ),
        })
    }

    fn guessed(&self, precision: Precision, flops_per_token: u64) -> Option<Expected> {
        let n_threads = thread::available_parallelism().map_or(1, NonZero::get);
        let place = Precision::ALL.iter().position(|one| *one == precision)?;
        let peak = self.peaks[place].get_or_init(|| measured_peak(n_threads, precision));
        let peak = (*peak)?;
        let (share, gigaflops) = (100.0 * SHARE, peak / 1e9);
        Some(Expected {
            tokens_per_second: peak * SHARE / flops_per_token.max(1) as f64,
            told: format!(
                "a guess until a training in {} has been here: {share:.0} % of {gigaflops:.0} GFLOP/s, measured now",
                precision.word()
            ),
        })
    }
}

/// The precision of a stage that trains, by its settings.
pub(crate) fn precision(settings: &Value) -> Precision {
    let word = settings["train"]["precision"].as_str();
    let named = |one: &&Precision| Some(one.word()) == word;
    let found = Precision::ALL.iter().find(named);
    found.copied().unwrap_or(Precision::F32)
}

/// The trainings of this host on its processors that came to an end, the newest first.
fn trainings(registry: &Registry) -> Option<Vec<Training>> {
    let query = RunQuery {
        limit: Some(RUNS),
        ..RunQuery::default()
    };
    let here = host_name();
    let mut found: Vec<Training> = Vec::new();
    for run in registry.runs(&query).ok()? {
        if run.host["name"] != here {
            continue;
        }
        for stage in registry.stages(&run.id).ok()? {
            // What was hit is told of by the run that made it.
            let made = stage.outcome == Outcome::Made;
            let Some(execution_id) = stage.execution_id.filter(|_| made) else {
                continue;
            };
            // A run says what was asked for, which may be whatever is found.
            let execution = registry.execution(&execution_id).ok()?;
            if execution.is_none_or(|execution| execution.device != "cpu") {
                continue;
            }
            let names = registry.metric_names(&execution_id).ok()?;
            let finals = registry.final_numbers(&execution_id).ok()?;
            let size = finals.iter().find(|(name, ..)| name == "parameters");
            let has_speed = names.iter().any(|name| name == SPEED);
            if let Some((_, n_parameters, _)) = size.filter(|_| has_speed) {
                found.push(Training {
                    precision: precision(&stage.settings),
                    n_parameters: *n_parameters,
                    name: format!("{}/{}", run.name, stage.name),
                    execution_id,
                });
            }
        }
    }
    Some(found)
}

/// The tokens over the time of a training's steps: of speeds over the same work that is their harmonic
/// mean, in which a slow step weighs what it took.
fn tokens_per_second(registry: &Registry, execution_id: &str) -> Option<f64> {
    let curve = registry
        .metric_series(execution_id, SPEED, usize::MAX)
        .ok()?;
    let speeds = curve.points.iter().map(|point| point.value);
    let speeds: Vec<f64> = speeds.filter(|speed| *speed > 0.0).collect();
    let times: f64 = speeds.iter().map(|speed| 1.0 / speed).sum();
    (!speeds.is_empty()).then(|| speeds.len() as f64 / times)
}
