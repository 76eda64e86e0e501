//! A setting, a metric, a curve, a prompt or a stage as several runs have it: a line of a comparison.

use serde::{Serialize, Serializer};

use crate::{curve::serialize_value, metric::Better};

/// A setting that is not the same everywhere.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SettingRow {
    pub name: String,
    pub values: Vec<Option<String>>,
}

#[derive(Clone, Debug, Serialize)]
pub struct MetricRow {
    pub stage: String,
    pub metric: String,
    pub better: Option<Better>,
    #[serde(serialize_with = "serialize_values")]
    pub values: Vec<Option<f64>>,
    /// The standard error of each value, where its stage tells one.
    #[serde(serialize_with = "serialize_values")]
    pub errors: Vec<Option<f64>>,
    /// Whether the value is the last of a curve, not the number its stage ended with.
    pub is_last: Vec<bool>,
    /// Difference from the first run in per cent.
    pub changes: Vec<Option<f64>>,
    /// Whether the run has the best value; none has where all are equal.
    pub is_best: Vec<bool>,
}

#[derive(Clone, Debug, Serialize)]
pub struct CurveRow {
    pub stage: String,
    pub metric: String,
    /// Where each run's curve stands in its report.
    pub curves: Vec<Option<usize>>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SampleRow {
    pub stage: String,
    pub prompt: String,
    pub texts: Vec<Option<String>>,
}

/// Stages of several runs that are the same artifact.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SharedStage {
    pub stage: String,
    pub kind: String,
    pub artifact: String,
    /// By their place in the comparison.
    pub runs: Vec<usize>,
}

fn serialize_values<S: Serializer>(
    values: &[Option<f64>],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Value(#[serde(serialize_with = "serialize_value")] f64);
    serializer.collect_seq(values.iter().map(|value| value.map(Value)))
}

impl MetricRow {
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.stage, self.metric)
    }

    /// Returns whether a run's value is better than the first run's, where one can say.
    pub(crate) fn is_better(&self, run_idx: usize) -> Option<bool> {
        let (better, first, value) = (self.better?, self.values[0]?, self.values[run_idx]?);
        (first != value).then(|| better.prefers(value, first))
    }

    /// Returns whether the metric can be better or worse, or at least differs: counts that are the
    /// same everywhere, and where a schedule happened to end, are no news.
    pub(super) fn is_telling(&self) -> bool {
        self.better.is_some()
            || !self.is_last.contains(&true)
                && self.values.iter().any(|value| *value != self.values[0])
    }
}

impl SampleRow {
    /// Returns each text once, with the runs that wrote it.
    pub(crate) fn groups(&self) -> Vec<(&str, Vec<usize>)> {
        let mut groups: Vec<(&str, Vec<usize>)> = Vec::new();
        for (run_idx, text) in self.texts.iter().enumerate() {
            let Some(text) = text else { continue };
            match groups.iter_mut().find(|(other, _)| other == text) {
                Some((_, runs)) => runs.push(run_idx),
                None => groups.push((text, vec![run_idx])),
            }
        }
        groups
    }
}
