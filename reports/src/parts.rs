//! Tables of what was measured of each part of a whole: a line a part.

use crate::{
    metric::{Part, is_error, is_error_of},
    report::Report,
};

pub(crate) struct PartTable<'a> {
    pub stage: &'a str,
    pub by: &'a str,
    pub metrics: Vec<&'a str>,
    pub parts: Vec<(&'a str, Vec<Option<f64>>)>,
}

impl Report {
    /// Returns the tables of wholes that have several parts; a single one is the whole, but of tasks,
    /// which have none.
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
        tables.retain(|table| table.parts.len() > 1 || table.by == "task");
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

    /// Returns whether a metric has a column: an error stands beside its value, zeros alone are no news,
    /// and of tasks few figures fit a screen.
    pub(crate) fn is_shown(&self, metric_idx: usize) -> bool {
        let metric = self.metrics[metric_idx];
        let is_left_out = is_error(metric) || self.by == "task" && metric == "perplexity";
        let mut values = (0..self.parts.len()).filter_map(|idx| self.value(idx, metric_idx));
        !is_left_out && values.any(|value| value != 0.0)
    }

    /// Returns the standard error of a value, where there is one.
    pub(crate) fn error(&self, part_idx: usize, metric_idx: usize) -> Option<f64> {
        let of = self.metrics[metric_idx];
        let error = self.metrics.iter().position(|name| is_error_of(name, of))?;
        self.value(part_idx, error)
    }

    pub(crate) fn value(&self, part_idx: usize, metric_idx: usize) -> Option<f64> {
        *self.parts[part_idx].1.get(metric_idx)?
    }
}
