//! Runs as a table of a data frame, to be asked what each value of a setting did.
//!
//! This is what polars is for here: a sweep is a table with a run a row and a setting a column, and
//! every question about it is a grouping. Documents are not read with it, because a damaged file
//! made it panic and a row that it cannot read takes its neighbours along (`stages/DESIGN.md`).

use polars::prelude::{ChunkAgg, Column, DataFrame, PolarsResult};

use super::row::{MetricRow, SettingRow};
use crate::metric::Better;

/// The column of the number that runs are judged by; no setting has this name.
const MAIN: &str = "\u{1}main";

/// The runs that have the main metric.
pub(super) struct Frame(DataFrame);

/// The runs with one value of a setting.
pub(super) struct Group {
    pub value: String,
    pub n_runs: usize,
    pub mean: f64,
    pub best: f64,
}

impl Frame {
    /// Puts settings and the main metric side by side; a setting that a run lacks is a dash.
    pub(super) fn new(settings: &[SettingRow], main: &MetricRow) -> PolarsResult<Frame> {
        let has_main = |idx: &usize| main.values[*idx].is_some();
        let runs: Vec<usize> = (0..main.values.len()).filter(has_main).collect();
        let numbers: Vec<Option<f64>> = runs.iter().map(|&idx| main.values[idx]).collect();
        let mut columns = vec![Column::new(MAIN.into(), numbers)];
        for setting in settings {
            let values = runs.iter().map(|&idx| setting.values[idx].as_deref());
            let values: Vec<&str> = values.map(|value| value.unwrap_or("–")).collect();
            columns.push(Column::new(setting.name.as_str().into(), values));
        }
        DataFrame::new(runs.len(), columns).map(Frame)
    }

    /// Returns the runs by their value of a setting, in the order in which the values appear.
    pub(super) fn by(&self, setting: &str, better: Better) -> PolarsResult<Vec<Group>> {
        let parts = self.0.partition_by_stable([setting], true)?;
        let group = |part: DataFrame| {
            let value = part.column(setting)?.str()?.get(0).unwrap_or_default();
            let numbers = part.column(MAIN)?.f64()?;
            let best = numbers.iter().flatten().fold(f64::NAN, |best, value| {
                match better.prefers(value, best) {
                    true => value,
                    false => best,
                }
            });
            Ok(Group {
                value: value.to_owned(),
                n_runs: part.height(),
                mean: numbers.mean().unwrap_or(f64::NAN),
                best,
            })
        };
        parts.into_iter().map(group).collect()
    }
}
