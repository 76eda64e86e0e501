//! All that is told of one run, as a value.
//!
//! The terminal, the page, JSON, CSV and Markdown are made from this value and from nothing else,
//! so they cannot disagree, and none of them can ask the registry a question of its own. It holds
//! what was recorded; what follows from it (what was hit, what it cost) are methods.

use serde::Serialize;
use serde_json::Value;

use crate::{
    curve::{Curve, serialize_value},
    metric::Part,
};

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub run: Run,
    /// Every setting, flattened: `base.train.lr` is `0.001`.
    pub settings: Vec<Setting>,
    /// In the order of the graph.
    pub stages: Vec<Stage>,
    /// The numbers a stage ended with.
    pub finals: Vec<Final>,
    pub curves: Vec<Curve>,
    pub samples: Vec<Sample>,
    pub events: Vec<Event>,
    pub notes: Vec<Note>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Run {
    pub id: String,
    pub name: String,
    pub experiment: String,
    /// The comment that opens the experiment's file: what it asks.
    pub question: String,
    pub file: String,
    pub seed: Option<u64>,
    pub status: String,
    pub started_ms: i64,
    pub ended_ms: Option<i64>,
    /// From start to end, or to now while it goes on.
    pub elapsed_seconds: f64,
    pub host: Host,
    pub device: String,
    pub git_commit: Option<String>,
    pub git_dirty: bool,
    pub version: String,
    pub command: String,
    pub sweep: Option<String>,
    pub tags: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Host {
    pub name: String,
    pub os: String,
    pub cpu: String,
    pub cores: Option<u64>,
    pub memory_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    pub name: String,
    pub value: String,
    pub is_default: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    pub name: String,
    pub kind: String,
    /// `pending`, `running`, `hit`, `made`, `failed`, `skipped` or `cancelled`.
    pub outcome: String,
    pub key: Option<String>,
    pub artifact: Option<String>,
    pub reason: String,
    /// By role, the stages it reads.
    pub inputs: Vec<(String, Vec<String>)>,
    pub settings: Value,
    /// The execution that made its artifact, here or in an earlier run.
    pub execution: Option<Execution>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Execution {
    pub id: String,
    pub run_id: String,
    pub run_name: String,
    pub attempt: u32,
    pub status: String,
    pub started_ms: i64,
    pub ended_ms: Option<i64>,
    /// From start to end, or to now while it goes on.
    pub elapsed_seconds: f64,
    pub cpu_seconds: Option<f64>,
    pub peak_memory_bytes: Option<u64>,
    pub device: String,
    pub threads: Option<u32>,
    /// Where a download came from: hub, revision, files, digests.
    pub origin: Option<Value>,
    pub error: Option<String>,
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

#[derive(Clone, Debug, Serialize)]
pub struct Event {
    pub stage: Option<String>,
    pub at_ms: i64,
    pub level: String,
    pub message: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct Note {
    pub at_ms: i64,
    pub text: String,
}

/// What a run cost: time on the wall, processor time, the largest memory of any stage.
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
    pub fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.name == name)
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

    /// Returns what the run spent itself, and what its artifacts took whoever made them.
    pub fn cost(&self) -> Cost {
        let mut cost = Cost {
            elapsed_seconds: self.run.elapsed_seconds,
            ..Cost::default()
        };
        for stage in &self.stages {
            let Some(execution) = &stage.execution else {
                continue;
            };
            cost.stages_seconds += execution.elapsed_seconds;
            if stage.outcome == "hit" {
                cost.n_hit += 1;
                continue;
            }
            cost.n_made += usize::from(stage.outcome == "made");
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
        self.events.iter().filter(|event| event.level != "info")
    }

    pub fn is_going(&self) -> bool {
        self.run.status == "running"
    }
}

/// What a stage measured of each part of a whole, as a table: a line a part.
pub(crate) struct PartTable<'a> {
    pub stage: &'a str,
    pub by: &'a str,
    pub metrics: Vec<&'a str>,
    pub parts: Vec<(&'a str, Vec<Option<f64>>)>,
}

impl Report {
    /// Returns the tables of wholes that have several parts; a single one is the whole.
    pub(crate) fn part_tables(&self) -> Vec<PartTable<'_>> {
        let mut tables: Vec<PartTable<'_>> = Vec::new();
        for last in &self.finals {
            let Some(part) = Part::of(&last.metric) else {
                continue;
            };
            let is_of = |table: &PartTable<'_>| table.stage == last.stage && table.by == part.by;
            let table_idx = tables.iter().position(is_of).unwrap_or_else(|| {
                tables.push(PartTable {
                    stage: &last.stage,
                    by: part.by,
                    metrics: Vec::new(),
                    parts: Vec::new(),
                });
                tables.len() - 1
            });
            tables[table_idx].add(part, last.value);
        }
        tables.retain(|table| table.parts.len() > 1);
        tables
    }
}

impl<'a> PartTable<'a> {
    fn add(&mut self, part: Part<'a>, value: f64) {
        let metrics = &mut self.metrics;
        let known = metrics.iter().position(|metric| *metric == part.metric);
        let metric_idx = known.unwrap_or_else(|| {
            metrics.push(part.metric);
            metrics.len() - 1
        });
        let known = self.parts.iter().position(|(name, _)| *name == part.name);
        let part_idx = known.unwrap_or_else(|| {
            self.parts.push((part.name, Vec::new()));
            self.parts.len() - 1
        });
        let values = &mut self.parts[part_idx].1;
        values.resize(values.len().max(metric_idx + 1), None);
        values[metric_idx] = Some(value);
    }

    pub(crate) fn value(&self, part_idx: usize, metric_idx: usize) -> Option<f64> {
        *self.parts[part_idx].1.get(metric_idx)?
    }
}

/// A sample without a step was written when all steps were done.
fn order(step: Option<u64>) -> u64 {
    step.unwrap_or(u64::MAX)
}

impl Stage {
    /// Returns the stages it reads, each once, in their order.
    pub fn reads(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.inputs.iter().flat_map(|(_, names)| names) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }
}
