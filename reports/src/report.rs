//! All that is told of one run, as a value.
//!
//! It holds the registry's own rows and adds what takes several of them to know: how long something
//! lasted, which run made what another one found, curves with their tokens. What follows from it
//! (what was hit, what it cost) are methods. How it is told is decided in `sections`.

use serde::Serialize;
use tinylm_registry::{
    Event, Execution, Judge, Level, Note, Outcome, Param, Progress, Run, StageRow, Status,
};

use crate::{
    curve::{Curve, serialize_value},
    metric::is_error_of,
};

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub run: Run,
    /// The comment that opens the experiment's file.
    pub question: String,
    /// The number that the experiment's file calls its headline, as `STAGE.METRIC`.
    pub headline: Option<String>,
    /// From start to end, or to now while it goes on.
    pub elapsed_seconds: f64,
    /// Every setting, flattened: `base.train.lr` is `0.001`.
    pub settings: Vec<Param>,
    /// In the order of the graph.
    pub stages: Vec<Stage>,
    /// The numbers a stage ended with.
    pub finals: Vec<Final>,
    pub curves: Vec<Curve>,
    pub samples: Vec<Sample>,
    pub events: Vec<Event>,
    pub notes: Vec<Note>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    #[serde(flatten)]
    pub row: StageRow,
    /// The execution that made its artifact, here or in an earlier run.
    pub execution: Option<Execution>,
    /// The name of the run that carried it out; empty when that run has been removed.
    pub made_by: String,
    /// From start to end of the execution, or to now while it goes on.
    pub elapsed_seconds: f64,
    /// How far it is, while it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub going: Option<Going>,
}

/// How far a running stage is, and the last it said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Going {
    #[serde(flatten)]
    pub progress: Progress,
    pub loss: Option<f64>,
    pub tokens_per_second: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Final {
    pub stage: String,
    pub metric: String,
    #[serde(serialize_with = "serialize_value")]
    pub value: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    pub stage: String,
    /// The step of training it was written at; `None` when the stage was done.
    pub step: Option<u64>,
    pub prompt: String,
    pub text: String,
}

/// The cost of a run: time on the wall, processor time, the largest memory of any stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// The run's own, from start to end.
    pub elapsed_seconds: f64,
    pub cpu_seconds: f64,
    pub peak_memory_bytes: u64,
    /// The time of all that it stands on, had nothing been there before.
    pub stages_seconds: f64,
    pub n_made: usize,
    pub n_hit: usize,
}

impl Report {
    /// Returns the standard error of a final number, where its stage tells one.
    pub(crate) fn error_of(&self, of: &Final) -> Option<f64> {
        let is_of = |last: &&Final| last.stage == of.stage && is_error_of(&last.metric, &of.metric);
        self.finals.iter().find(is_of).map(|last| last.value)
    }

    pub fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.row.name == name)
    }

    pub fn final_value(&self, stage: &str, metric: &str) -> Option<f64> {
        let found = self
            .finals
            .iter()
            .find(|last| last.stage == stage && last.metric == metric);
        found.map(|last| last.value)
    }

    pub fn curve(&self, stage: &str, metric: &str) -> Option<&Curve> {
        self.curves
            .iter()
            .find(|curve| curve.stage == stage && curve.metric == metric)
    }

    /// Returns the number that the run is judged by.
    pub fn headline_value(&self) -> Option<&Final> {
        let judge = Judge::of(self.stages.iter().map(|stage| &stage.row));
        let metrics = self.finals.iter().map(|last| (&*last.stage, &*last.metric));
        let found = judge.headline(metrics, self.headline.as_deref());
        found.map(|idx| &self.finals[idx])
    }

    /// Returns what the run spent itself, and what its artifacts took whoever made them.
    pub fn cost(&self) -> Cost {
        let mut cost = Cost {
            elapsed_seconds: self.elapsed_seconds,
            ..Cost::default()
        };
        for stage in &self.stages {
            let Some(execution) = &stage.execution else {
                continue;
            };
            cost.stages_seconds += stage.elapsed_seconds;
            if stage.row.outcome == Outcome::Hit {
                cost.n_hit += 1;
                continue;
            }
            cost.n_made += usize::from(stage.row.outcome == Outcome::Made);
            cost.cpu_seconds += execution.cpu_seconds.unwrap_or(0.0);
            cost.peak_memory_bytes = cost
                .peak_memory_bytes
                .max(execution.peak_memory_bytes.unwrap_or(0));
        }
        cost
    }

    /// Returns the samples of a finished stage, or the last ones of a stage in training.
    pub fn samples_last(&self) -> Vec<&Sample> {
        let is_last = |sample: &&Sample| {
            let newest = self
                .samples
                .iter()
                .filter(|other| other.stage == sample.stage)
                .map(|other| order(other.step))
                .max();
            newest == Some(order(sample.step))
        };
        self.samples.iter().filter(is_last).collect()
    }

    pub fn warnings(&self) -> impl Iterator<Item = &Event> {
        self.events
            .iter()
            .filter(|event| event.level != Level::Info)
    }

    /// Forgets what other stages measured and wrote; who they are stays.
    pub fn keep_only(&mut self, stage: &str) {
        self.curves.retain(|curve| curve.stage == stage);
        self.finals.retain(|last| last.stage == stage);
        self.samples.retain(|sample| sample.stage == stage);
        for other in self
            .stages
            .iter_mut()
            .filter(|other| other.row.name != stage)
        {
            other.going = None;
        }
    }

    pub fn is_going(&self) -> bool {
        self.run.status == Status::Running
    }
}

/// A sample without a step was written when all steps were done.
fn order(step: Option<u64>) -> u64 {
    step.unwrap_or(u64::MAX)
}

impl Stage {
    /// Returns why it ran; the outcome of a hit says already which run made it.
    pub fn reason(&self) -> Option<&str> {
        let is_told = self.row.outcome != Outcome::Hit;
        let reason = self.row.reason.as_deref();
        reason.filter(|text| is_told && !text.is_empty())
    }

    /// Returns the error it ended with in this run; what was hit has none to show.
    pub fn error(&self) -> Option<&str> {
        let is_here = self.row.outcome != Outcome::Hit;
        let execution = self.execution.as_ref().filter(|_| is_here)?;
        execution.error.as_deref()
    }
}
