//! The number that runs are judged by, and the few that stand beside it.
//!
//! Which of a run's numbers it is, the registry says ([`Judge`]), so that a page shows what a
//! condition on runs asked for.

use tinylm_registry::Judge;

use crate::{
    comparison::row::MetricRow,
    report::{Final, Report},
};

/// Returns the metric by which several runs are judged: one that most of them have.
pub(crate) fn headline_row<'a>(runs: &[Report], metrics: &'a [MetricRow]) -> Option<&'a MetricRow> {
    let chosen = runs[0].headline.as_ref();
    let is_agreed = runs.iter().all(|report| report.headline.as_ref() == chosen);
    let chosen = chosen.filter(|_| is_agreed);
    if let Some(row) = metrics.iter().find(|row| Some(&row.full_name()) == chosen) {
        return Some(row);
    }
    let judge = Judge::of(runs[0].stages.iter().map(|stage| &stage.row));
    let rank = |row: &&MetricRow| {
        let n_missing = row.values.iter().filter(|value| value.is_none()).count();
        let is_rare = n_missing * 2 > row.values.len();
        let preference = Judge::preference(&row.metric).unwrap_or(usize::MAX);
        let place = std::cmp::Reverse(judge.place(&row.stage));
        (is_rare, preference, place, n_missing)
    };
    let rows = metrics.iter().filter(|row| row.better.is_some());
    rows.min_by_key(rank)
}

/// Returns the few numbers a reader came for: the headline, others of its stage, then of others.
pub(crate) fn figures(report: &Report) -> Vec<&Final> {
    const BESIDE: [&str; 6] = [
        "perplexity",
        "accuracy_top1",
        "bits_per_byte",
        "best_validation_loss",
        "validation_loss",
        "tokens_per_second",
    ];
    const FIGURES_MAX: usize = 4;
    let Some(headline) = report.headline_value() else {
        return Vec::new();
    };
    let mut figures = vec![headline];
    for name in BESIDE {
        let named = || report.finals.iter().filter(|last| last.metric == name);
        let beside = named().find(|last| last.stage == headline.stage);
        let found = beside.or_else(|| named().next_back());
        let is_new = |last: &&Final| figures.iter().all(|figure| figure.metric != last.metric);
        figures.extend(found.filter(is_new));
    }
    figures.truncate(FIGURES_MAX);
    figures
}
