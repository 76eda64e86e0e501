//! The order in which runs stand beside each other.

use std::cmp::Ordering;

use super::row::{MetricRow, SettingRow};
use crate::{Error, report::Report};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sort {
    /// A metric, a setting, or one of `name`, `started`, `time`, `cpu`, `memory`, `status`.
    pub by: String,
    pub descending: bool,
}

impl Sort {
    /// Reads `NAME`, or `-NAME` for the largest first.
    pub fn parse(text: &str) -> Sort {
        match text.strip_prefix('-') {
            Some(name) => Sort {
                by: name.to_owned(),
                descending: true,
            },
            None => Sort {
                by: text.to_owned(),
                descending: false,
            },
        }
    }
}

/// Returns the places of the runs in the order asked for; as they came when nothing was asked.
pub(super) fn order(
    runs: &[Report],
    metrics: &[MetricRow],
    settings: &[SettingRow],
    sort: Option<&Sort>,
) -> Result<Vec<usize>, Error> {
    let mut order: Vec<usize> = (0..runs.len()).collect();
    let Some(sort) = sort else { return Ok(order) };
    let by_number = |of: &dyn Fn(usize) -> Option<f64>| -> Vec<SortKey> {
        (0..runs.len())
            .map(|idx| SortKey::number(of(idx)))
            .collect()
    };
    let keys: Vec<SortKey> = match sort.by.as_str() {
        "name" => runs
            .iter()
            .map(|run| SortKey::Text(run.run.name.clone()))
            .collect(),
        "status" => runs
            .iter()
            .map(|run| SortKey::Text(run.run.status.to_string()))
            .collect(),
        "started" => by_number(&|idx| Some(runs[idx].run.started_at as f64)),
        "time" => by_number(&|idx| Some(runs[idx].cost().elapsed_seconds)),
        "cpu" => by_number(&|idx| Some(runs[idx].cost().cpu_seconds)),
        "memory" => by_number(&|idx| Some(runs[idx].cost().peak_memory_bytes as f64)),
        name => match metrics
            .iter()
            .filter(|row| row.metric == name || row.full_name() == name)
            .min_by_key(|row| row.is_last.iter().filter(|is_last| **is_last).count())
        {
            Some(row) => by_number(&|idx| row.values[idx]),
            None => match settings
                .iter()
                .find(|row| row.name == name || row.name.ends_with(&format!(".{name}")))
            {
                Some(row) => row.values.iter().map(SortKey::setting).collect(),
                None => return Err(unknown_sort(name, metrics, settings)),
            },
        },
    };
    order.sort_by(|&a, &b| keys[a].compare(&keys[b], sort.descending));
    Ok(order)
}

fn unknown_sort(name: &str, metrics: &[MetricRow], settings: &[SettingRow]) -> Error {
    let mut known = ["name", "status", "started", "time", "cpu", "memory"]
        .map(str::to_owned)
        .to_vec();
    known.extend(metrics.iter().map(MetricRow::full_name));
    known.extend(settings.iter().map(|row| row.name.clone()));
    Error::UnknownSort {
        name: name.to_owned(),
        known,
    }
}

enum SortKey {
    Number(f64),
    Text(String),
    Missing,
}

impl SortKey {
    fn number(value: Option<f64>) -> SortKey {
        value
            .filter(|value| !value.is_nan())
            .map_or(SortKey::Missing, SortKey::Number)
    }

    fn setting(value: &Option<String>) -> SortKey {
        match value {
            None => SortKey::Missing,
            Some(text) => text
                .parse()
                .map_or_else(|_| SortKey::Text(text.clone()), SortKey::Number),
        }
    }

    /// Missing values and values that are no numbers stand last, whichever way is asked for.
    fn compare(&self, other: &SortKey, descending: bool) -> Ordering {
        let turned = |ordering: Ordering| {
            if descending {
                ordering.reverse()
            } else {
                ordering
            }
        };
        match (self, other) {
            (SortKey::Missing, SortKey::Missing) => Ordering::Equal,
            (SortKey::Missing, _) => Ordering::Greater,
            (_, SortKey::Missing) => Ordering::Less,
            (SortKey::Number(a), SortKey::Number(b)) => turned(a.total_cmp(b)),
            (SortKey::Text(a), SortKey::Text(b)) => turned(a.cmp(b)),
            (SortKey::Number(_), SortKey::Text(_)) => Ordering::Less,
            (SortKey::Text(_), SortKey::Number(_)) => Ordering::Greater,
        }
    }
}

pub(super) fn reordered(runs: Vec<Report>, order: &[usize]) -> Vec<Report> {
    let mut runs: Vec<Option<Report>> = runs.into_iter().map(Some).collect();
    order.iter().filter_map(|&idx| runs[idx].take()).collect()
}
