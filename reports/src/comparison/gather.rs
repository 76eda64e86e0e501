//! From reports whose stages are matched to the lines of a comparison.

use std::collections::BTreeMap;

use super::{
    lines::Lines,
    row::{CurveRow, MetricRow, SampleRow, SettingRow, SharedStage},
    seeds::is_seed,
};
use crate::{
    metric::{Better, is_error, is_error_of, selects},
    report::{Report, Stage},
};

pub(super) fn setting_rows(runs: &[Report], lines: &Lines) -> Vec<SettingRow> {
    struct Row {
        order: usize,
        values: Vec<Option<String>>,
        is_changed: bool,
    }
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for (run_idx, run) in runs.iter().enumerate() {
        for setting in &run.settings {
            let name = lines.setting_name(run_idx, &setting.name);
            let n_rows = rows.len();
            let row = rows.entry(name).or_insert_with(|| Row {
                order: n_rows,
                values: vec![None; runs.len()],
                is_changed: false,
            });
            row.values[run_idx] = Some(setting.value.clone());
            row.is_changed |= !setting.is_default;
        }
    }
    let mut differing: Vec<(usize, SettingRow)> = rows
        .into_iter()
        .filter(|(_, row)| differs(&row.values, row.is_changed))
        .map(|(name, row)| {
            (
                row.order,
                SettingRow {
                    name,
                    values: row.values,
                },
            )
        })
        .collect();
    differing.sort_by_key(|(order, _)| *order);
    let rows = differing.into_iter().map(|(_, row)| row).collect();
    without_told_variables(rows)
}

/// Leaves out a variable of a sweep where a setting tells the runs apart just as it does.
fn without_told_variables(rows: Vec<SettingRow>) -> Vec<SettingRow> {
    let is_variable = |row: &SettingRow| row.name.starts_with("vars.");
    let groups = |row: &SettingRow| -> Vec<Option<usize>> {
        let first = |value| row.values.iter().position(|other| other == value);
        row.values.iter().map(first).collect()
    };
    let tells = |row: &&SettingRow| !is_variable(row) && !is_seed(&row.name);
    let told: Vec<_> = rows.iter().filter(tells).map(groups).collect();
    let mut rows = rows;
    rows.retain(|row| !is_variable(row) || !told.contains(&groups(row)));
    rows
}

/// Returns whether a setting is worth a line: its values differ, or it was changed where others lack it.
/// A default of a stage that the other run does not even have is no difference anyone made.
fn differs(values: &[Option<String>], is_changed: bool) -> bool {
    let mut present = values.iter().flatten();
    let Some(first) = present.next() else {
        return false;
    };
    if present.any(|value| value != first) {
        return true;
    }
    is_changed && values.iter().any(Option::is_none)
}

pub(super) fn metric_rows(runs: &[Report], lines: &Lines, wanted: &[String]) -> Vec<MetricRow> {
    let mut rows = Vec::new();
    for line in &lines.lines {
        let mut names: Vec<&str> = Vec::new();
        let mut values: BTreeMap<&str, Vec<Option<(f64, bool)>>> = BTreeMap::new();
        for run_idx in 0..runs.len() {
            let Some(stage) = lines.stage(runs, line, run_idx) else {
                continue;
            };
            for (metric, value, is_last) in stage_values(&runs[run_idx], stage) {
                let of_runs = values.entry(metric).or_insert_with(|| {
                    names.push(metric);
                    vec![None; runs.len()]
                });
                of_runs[run_idx].get_or_insert((value, is_last));
            }
        }
        let chosen = names
            .into_iter()
            .filter(|metric| selects(wanted, &line.label, metric));
        rows.extend(chosen.map(|metric| metric_row(&line.label, metric, &values[metric])));
    }
    with_errors(rows, !wanted.is_empty())
}

/// Puts standard errors beside what they belong to. A row of their own they have where they are asked for.
fn with_errors(mut rows: Vec<MetricRow>, is_asked: bool) -> Vec<MetricRow> {
    for idx in 0..rows.len() {
        let row = &rows[idx];
        let is_of = |other: &&MetricRow| {
            other.stage == row.stage && is_error_of(&other.metric, &row.metric)
        };
        if let Some(error) = rows.iter().find(is_of) {
            rows[idx].errors = error.values.clone();
        }
    }
    rows.retain(|row| is_asked || !is_error(&row.metric));
    rows
}

/// Returns what a stage ended with: its final numbers, then the ends of curves that have none. How
/// the machine was loaded at the end is no result.
fn stage_values<'a>(
    report: &'a Report,
    stage: &'a Stage,
) -> impl Iterator<Item = (&'a str, f64, bool)> {
    let finals = report
        .finals
        .iter()
        .filter(|last| last.stage == stage.row.name);
    let curves = report
        .curves
        .iter()
        .filter(|curve| curve.stage == stage.row.name && !curve.is_load());
    let ends = curves.filter_map(|curve| Some((curve.metric.as_str(), curve.last()?, true)));
    finals
        .map(|last| (last.metric.as_str(), last.value, false))
        .chain(ends)
}

fn metric_row(stage: &str, metric: &str, values: &[Option<(f64, bool)>]) -> MetricRow {
    let better = Better::of(metric);
    let is_last = values
        .iter()
        .map(|value| value.is_some_and(|(_, is_last)| is_last))
        .collect();
    let values: Vec<Option<f64>> = values
        .iter()
        .map(|value| value.map(|(value, _)| value))
        .collect();
    let first = values.first().copied().flatten();
    let changes = values.iter().enumerate().map(|(idx, value)| {
        if idx == 0 {
            None
        } else {
            change(first, *value)
        }
    });
    MetricRow {
        stage: stage.to_owned(),
        metric: metric.to_owned(),
        better,
        changes: changes.collect(),
        is_best: is_best(better, &values),
        is_last,
        errors: vec![None; values.len()],
        values,
    }
}

/// Returns the relative difference in per cent.
fn change(from: Option<f64>, to: Option<f64>) -> Option<f64> {
    let (from, to) = (from?, to?);
    if from == to {
        return Some(0.0);
    }
    let change = (to - from) / from.abs() * 100.0;
    change.is_finite().then_some(change)
}

fn is_best(better: Option<Better>, values: &[Option<f64>]) -> Vec<bool> {
    let nobody = vec![false; values.len()];
    let Some(better) = better else { return nobody };
    let mut present = values.iter().flatten().copied();
    let Some(first) = present.next() else {
        return nobody;
    };
    let best = present.fold(first, |best, value| {
        if better.prefers(value, best) {
            value
        } else {
            best
        }
    });
    let is_worse = |value: &Option<f64>| value.is_some_and(|value| better.prefers(best, value));
    if best.is_nan() || !values.iter().any(is_worse) {
        return nobody;
    }
    values.iter().map(|value| *value == Some(best)).collect()
}

pub(super) fn curve_rows(runs: &[Report], lines: &Lines, wanted: &[String]) -> Vec<CurveRow> {
    let mut rows: Vec<CurveRow> = Vec::new();
    for line in &lines.lines {
        for run_idx in 0..runs.len() {
            let Some(stage) = lines.stage(runs, line, run_idx) else {
                continue;
            };
            for (curve_idx, curve) in runs[run_idx].curves.iter().enumerate() {
                if curve.stage != stage.row.name || !selects(wanted, &line.label, &curve.metric) {
                    continue;
                }
                let found = rows
                    .iter()
                    .position(|row| row.stage == line.label && row.metric == curve.metric);
                let row_idx = found.unwrap_or_else(|| {
                    let (stage, metric) = (line.label.clone(), curve.metric.clone());
                    rows.push(CurveRow {
                        stage,
                        metric,
                        curves: vec![None; runs.len()],
                    });
                    rows.len() - 1
                });
                rows[row_idx].curves[run_idx] = Some(curve_idx);
            }
        }
    }
    rows
}

pub(super) fn sample_rows(runs: &[Report], lines: &Lines) -> Vec<SampleRow> {
    let mut rows: Vec<SampleRow> = Vec::new();
    let mut places: BTreeMap<(usize, String), usize> = BTreeMap::new();
    for (run_idx, run) in runs.iter().enumerate() {
        for sample in run.samples_last() {
            let Some(&line_idx) = lines.of_stage[run_idx].get(&sample.stage) else {
                continue;
            };
            let row_idx = *places
                .entry((line_idx, sample.prompt.clone()))
                .or_insert_with(|| {
                    let (stage, prompt) =
                        (lines.lines[line_idx].label.clone(), sample.prompt.clone());
                    rows.push(SampleRow {
                        stage,
                        prompt,
                        texts: vec![None; runs.len()],
                    });
                    rows.len() - 1
                });
            rows[row_idx].texts[run_idx].get_or_insert_with(|| sample.text.clone());
        }
    }
    rows
}

pub(super) fn shared_stages(runs: &[Report], lines: &Lines) -> Vec<SharedStage> {
    let mut shared = Vec::new();
    for line in &lines.lines {
        let mut by_artifact: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for run_idx in 0..runs.len() {
            let artifact = lines
                .stage(runs, line, run_idx)
                .and_then(|stage| stage.row.artifact.as_deref());
            if let Some(artifact) = artifact {
                by_artifact.entry(artifact).or_default().push(run_idx);
            }
        }
        let mut groups: Vec<_> = by_artifact
            .into_iter()
            .filter(|(_, runs)| runs.len() > 1)
            .collect();
        groups.sort_by_key(|(_, runs)| runs[0]);
        shared.extend(groups.into_iter().map(|(artifact, runs)| SharedStage {
            stage: line.label.clone(),
            kind: line.kind.clone(),
            artifact: artifact.to_owned(),
            runs,
        }));
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_told_where_no_setting_tells_the_same() {
        let row = |name: &str, values: [&str; 3]| SettingRow {
            name: name.to_owned(),
            values: values.map(|value| Some(value.to_owned())).to_vec(),
        };
        let rows = vec![
            row("seed", ["1", "2", "2"]),
            row("vars.model", ["one", "two", "two"]),
            row("vars.width", ["32", "32", "64"]),
            row("model.d_model", ["32", "32", "64"]),
        ];
        let told = without_told_variables(rows);
        let names: Vec<&str> = told.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["seed", "vars.model", "model.d_model"]);
    }
}
