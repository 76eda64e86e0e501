//! Several runs side by side, as a value.
//!
//! Runs of one experiment line up by the names of their stages. Runs of different experiments do
//! not: one calls its model `base`, the other `model`. So stages are matched by name and kind
//! first, and what is left over by kind, in the order of the graph; settings, metrics, curves and
//! samples then follow their stage. A sweep is nothing special: it is a comparison with more runs.
//!
//! The first run is the one the others are measured against.

use std::{cmp::Ordering, collections::BTreeMap};

use serde::{Serialize, Serializer};

use crate::{
    Error,
    curve::{Curve, serialize_value},
    frame::{Frame, Group},
    metric::{Better, Part},
    phrases::letter,
    report::{Cost, Report, Stage},
};

/// Which metrics are compared and in which order the runs stand.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// As `loss` or `perplexity.loss`; all when empty.
    pub metrics: Vec<String>,
    pub sort: Option<Sort>,
}

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

#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    pub runs: Vec<Report>,
    pub costs: Vec<Cost>,
    /// The metric runs are judged by, as `stage.metric`.
    pub main: Option<String>,
    pub settings: Vec<SettingRow>,
    pub metrics: Vec<MetricRow>,
    pub curves: Vec<CurveRow>,
    pub samples: Vec<SampleRow>,
    pub shared: Vec<SharedStage>,
    /// What each value of each setting did to the main metric, in three runs or more of one experiment.
    pub effects: Vec<Effect>,
}

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

/// How runs with one value of a setting did.
#[derive(Clone, Debug, Serialize)]
pub struct Effect {
    pub setting: String,
    pub value: String,
    pub n_runs: usize,
    #[serde(serialize_with = "serialize_value")]
    pub mean: f64,
    #[serde(serialize_with = "serialize_value")]
    pub best: f64,
    /// Between the means of the setting's best and worst value.
    #[serde(serialize_with = "serialize_value")]
    pub spread: f64,
}

fn serialize_values<S: Serializer>(
    values: &[Option<f64>],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Value(#[serde(serialize_with = "serialize_value")] f64);
    serializer.collect_seq(values.iter().map(|value| value.map(Value)))
}

/// Returns whether a list of wanted metrics holds this one; an empty list wants all.
pub(crate) fn selects(wanted: &[String], stage: &str, metric: &str) -> bool {
    let is_this = |name: &String| {
        name == metric
            || name
                .strip_prefix(stage)
                .is_some_and(|rest| rest.strip_prefix('.') == Some(metric))
    };
    wanted.is_empty() || wanted.iter().any(is_this)
}

/// Puts reports side by side.
pub fn compare(runs: Vec<Report>, selection: &Selection) -> Result<Comparison, Error> {
    let lines = Lines::of(&runs);
    let metrics = metric_rows(&runs, &lines, selection);
    let settings = setting_rows(&runs, &lines);
    check_all_metrics(&runs, &lines, &selection.metrics)?;
    let order = order(&runs, &metrics, &settings, selection.sort.as_ref())?;
    let runs = reordered(runs, &order);
    // Everything is made again in the final order: the first run decides what others differ from.
    let lines = Lines::of(&runs);
    let metrics = metric_rows(&runs, &lines, selection);
    let settings = setting_rows(&runs, &lines);
    let main = main_metric(&metrics);
    let is_one_experiment = runs
        .iter()
        .all(|run| run.run.experiment == runs[0].run.experiment);
    let effects = main
        .filter(|_| is_one_experiment)
        .map(|row| effects(&settings, row))
        .unwrap_or_default();
    Ok(Comparison {
        costs: runs.iter().map(Report::cost).collect(),
        main: main.map(MetricRow::full_name),
        effects,
        curves: curve_rows(&runs, &lines, selection),
        samples: sample_rows(&runs, &lines),
        shared: shared_stages(&runs, &lines),
        settings,
        metrics,
        runs,
    })
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
    fn is_telling(&self) -> bool {
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

/// The losses of the parts of a whole.
pub(crate) struct PartLosses<'a> {
    pub stage: &'a str,
    pub by: &'a str,
    pub parts: Vec<(&'a str, &'a MetricRow)>,
}

impl Comparison {
    /// Returns the metrics that tell something; parts of a whole only where nothing else was asked for.
    pub(crate) fn telling(&self) -> Vec<&MetricRow> {
        let is_part = |row: &MetricRow| Part::of(&row.metric).is_some();
        let shows_parts = self.metrics.iter().all(is_part);
        let rows = self.metrics.iter().filter(|row| row.is_telling());
        rows.filter(|row| shows_parts || !is_part(row)).collect()
    }

    /// Returns the losses of the parts of each whole that has several; one number says enough of a part.
    pub(crate) fn part_losses(&self) -> Vec<PartLosses<'_>> {
        let mut wholes: Vec<PartLosses<'_>> = Vec::new();
        for row in &self.metrics {
            let Some(part) = Part::of(&row.metric).filter(|part| part.metric == "loss") else {
                continue;
            };
            let (stage, by) = (row.stage.as_str(), part.by);
            match wholes
                .iter_mut()
                .find(|whole| (whole.stage, whole.by) == (stage, by))
            {
                Some(whole) => whole.parts.push((part.name, row)),
                None => wholes.push(PartLosses {
                    stage,
                    by,
                    parts: vec![(part.name, row)],
                }),
            }
        }
        wholes.retain(|whole| whole.parts.len() > 1);
        wholes
    }

    pub fn main_row(&self) -> Option<&MetricRow> {
        let main = self.main.as_ref()?;
        self.metrics.iter().find(|row| row.full_name() == *main)
    }

    /// Returns the names of shared stages by the letters of the runs that share them.
    pub(crate) fn shared_by_runs(&self) -> Vec<(String, Vec<&str>)> {
        let mut shared: Vec<(String, Vec<&str>)> = Vec::new();
        for stage in &self.shared {
            let runs = if stage.runs.len() == self.runs.len() {
                "all".to_owned()
            } else {
                let letters: Vec<String> = stage.runs.iter().map(|&idx| letter(idx)).collect();
                letters.join(" ")
            };
            match shared.iter_mut().find(|(other, _)| *other == runs) {
                Some((_, stages)) => stages.push(&stage.stage),
                None => shared.push((runs, vec![&stage.stage])),
            }
        }
        shared
    }

    pub fn curve(&self, row: &CurveRow, run_idx: usize) -> Option<&Curve> {
        self.runs[run_idx].curves.get(row.curves[run_idx]?)
    }
}

/// The stages of several runs, matched: a line is one stage in each run that has it.
struct Lines {
    lines: Vec<StageLine>,
    /// By run, the line of each stage.
    of_stage: Vec<BTreeMap<String, usize>>,
}

struct StageLine {
    label: String,
    kind: String,
    /// By run, the place of its stage.
    stages: Vec<Option<usize>>,
}

impl Lines {
    fn of(runs: &[Report]) -> Lines {
        let mut lines: Vec<StageLine> = Vec::new();
        let mut of_stage = vec![BTreeMap::new(); runs.len()];
        let mut by_name: BTreeMap<(String, String), usize> = BTreeMap::new();
        for (run_idx, run) in runs.iter().enumerate() {
            let mut left_over = Vec::new();
            for (stage_idx, stage) in run.stages.iter().enumerate() {
                let name = (stage.name.clone(), stage.kind.clone());
                match by_name.get(&name) {
                    Some(&line_idx) if lines[line_idx].stages[run_idx].is_none() => {
                        lines[line_idx].stages[run_idx] = Some(stage_idx);
                        of_stage[run_idx].insert(stage.name.clone(), line_idx);
                    }
                    _ => left_over.push(stage_idx),
                }
            }
            for stage_idx in left_over {
                let stage = &run.stages[stage_idx];
                let names_taken = |line: &StageLine| {
                    run.stages
                        .iter()
                        .any(|other| other.name == line.label && other.kind == line.kind)
                };
                let free = lines.iter().position(|line| {
                    line.kind == stage.kind && line.stages[run_idx].is_none() && !names_taken(line)
                });
                let line_idx = free.unwrap_or_else(|| {
                    lines.push(StageLine {
                        label: stage.name.clone(),
                        kind: stage.kind.clone(),
                        stages: vec![None; runs.len()],
                    });
                    lines.len() - 1
                });
                lines[line_idx].stages[run_idx] = Some(stage_idx);
                by_name
                    .entry((stage.name.clone(), stage.kind.clone()))
                    .or_insert(line_idx);
                of_stage[run_idx].insert(stage.name.clone(), line_idx);
            }
        }
        Lines { lines, of_stage }
    }

    fn stage<'a>(&self, runs: &'a [Report], line: &StageLine, run_idx: usize) -> Option<&'a Stage> {
        runs[run_idx].stages.get(line.stages[run_idx]?)
    }

    /// Returns a run's name for a setting as the first run would call it.
    fn setting_name(&self, run_idx: usize, name: &str) -> String {
        let line = name
            .split_once('.')
            .and_then(|(stage, rest)| Some((self.of_stage[run_idx].get(stage)?, rest)));
        match line {
            Some((&line_idx, rest)) => format!("{}.{rest}", self.lines[line_idx].label),
            None => name.to_owned(),
        }
    }
}

fn setting_rows(runs: &[Report], lines: &Lines) -> Vec<SettingRow> {
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
    differing.into_iter().map(|(_, row)| row).collect()
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

fn metric_rows(runs: &[Report], lines: &Lines, selection: &Selection) -> Vec<MetricRow> {
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
        let wanted = names
            .into_iter()
            .filter(|metric| selects(&selection.metrics, &line.label, metric));
        rows.extend(wanted.map(|metric| metric_row(&line.label, metric, &values[metric])));
    }
    rows
}

/// Returns what a stage ended with: its final numbers, then the ends of curves that have none.
fn stage_values<'a>(
    report: &'a Report,
    stage: &'a Stage,
) -> impl Iterator<Item = (&'a str, f64, bool)> {
    let finals = report.finals.iter().filter(|last| last.stage == stage.name);
    let curves = report
        .curves
        .iter()
        .filter(|curve| curve.stage == stage.name);
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

/// Chooses what runs are judged by: a held-out loss rather than a training one, and one most runs have.
fn main_metric(metrics: &[MetricRow]) -> Option<&MetricRow> {
    // Bits per byte first: the only one that is fair between two vocabularies.
    const PREFERRED: [&str; 6] = [
        "bits_per_byte",
        "best_validation_loss",
        "validation_loss",
        "perplexity",
        "loss",
        "accuracy_top1",
    ];
    let rank = |row: &&MetricRow| {
        let preference = PREFERRED
            .iter()
            .position(|name| *name == row.metric)
            .unwrap_or(PREFERRED.len());
        let n_missing = row.values.iter().filter(|value| value.is_none()).count();
        (n_missing * 2 > row.values.len(), preference, n_missing)
    };
    metrics
        .iter()
        .filter(|row| row.better.is_some())
        .min_by_key(rank)
}

fn curve_rows(runs: &[Report], lines: &Lines, selection: &Selection) -> Vec<CurveRow> {
    let mut rows: Vec<CurveRow> = Vec::new();
    for line in &lines.lines {
        for run_idx in 0..runs.len() {
            let Some(stage) = lines.stage(runs, line, run_idx) else {
                continue;
            };
            for (curve_idx, curve) in runs[run_idx].curves.iter().enumerate() {
                if curve.stage != stage.name
                    || !selects(&selection.metrics, &line.label, &curve.metric)
                {
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

fn sample_rows(runs: &[Report], lines: &Lines) -> Vec<SampleRow> {
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

fn shared_stages(runs: &[Report], lines: &Lines) -> Vec<SharedStage> {
    let mut shared = Vec::new();
    for line in &lines.lines {
        let mut by_artifact: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for run_idx in 0..runs.len() {
            let artifact = lines
                .stage(runs, line, run_idx)
                .and_then(|stage| stage.artifact.as_deref());
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

/// Groups the runs of a sweep by each value of each setting that varies.
fn effects(settings: &[SettingRow], main: &MetricRow) -> Vec<Effect> {
    /// A setting with a value of its own in every run says nothing about its values.
    const VALUES_MAX: usize = 12;
    if main.values.len() < 3 {
        return Vec::new();
    }
    let better = main.better.unwrap_or(Better::Lower);
    // Columns of equal length are always a table, and a setting is always a column of it.
    let Ok(frame) = Frame::new(settings, main) else {
        return Vec::new();
    };
    let groups = settings.iter().filter_map(|setting| {
        let groups = frame.by(&setting.name, better).ok()?;
        let is_telling = (2..=VALUES_MAX).contains(&groups.len());
        is_telling.then(|| setting_effects(&setting.name, groups, better))
    });
    let mut groups: Vec<Vec<Effect>> = groups.collect();
    groups.sort_by(|a, b| b[0].spread.total_cmp(&a[0].spread));
    groups.into_iter().flatten().collect()
}

fn setting_effects(setting: &str, groups: Vec<Group>, better: Better) -> Vec<Effect> {
    let means = groups.iter().map(|group| group.mean);
    let means: Vec<f64> = means.filter(|mean| mean.is_finite()).collect();
    let spread = means.iter().copied().fold(f64::NEG_INFINITY, f64::max)
        - means.iter().copied().fold(f64::INFINITY, f64::min);
    let effect = |group: Group| Effect {
        setting: setting.to_owned(),
        value: group.value,
        n_runs: group.n_runs,
        mean: group.mean,
        best: group.best,
        spread: if means.len() > 1 { spread } else { 0.0 },
    };
    let mut effects: Vec<Effect> = groups.into_iter().map(effect).collect();
    effects.sort_by(|a, b| preference(better, a.mean, b.mean));
    effects
}

pub(crate) fn preference(better: Better, a: f64, b: f64) -> Ordering {
    match (better.prefers(a, b), better.prefers(b, a)) {
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        _ => Ordering::Equal,
    }
}

/// Returns the places of the runs in the order asked for; as they came when nothing was asked.
fn order(
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
            .map(|run| SortKey::Text(run.run.status.clone()))
            .collect(),
        "started" => by_number(&|idx| Some(runs[idx].run.started_ms as f64)),
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

/// Refuses a metric that a report does not have.
pub fn check_metrics(report: &Report, wanted: &[String]) -> Result<(), Error> {
    let runs = std::slice::from_ref(report);
    check_all_metrics(runs, &Lines::of(runs), wanted)
}

/// Refuses a metric that no run has: an empty table would not say that its name was mistyped.
fn check_all_metrics(runs: &[Report], lines: &Lines, wanted: &[String]) -> Result<(), Error> {
    if wanted.is_empty() {
        return Ok(());
    }
    let all = metric_rows(runs, lines, &Selection::default());
    let is_known = |name: &&String| {
        all.iter()
            .any(|row| selects(std::slice::from_ref(*name), &row.stage, &row.metric))
    };
    match wanted.iter().find(|name| !is_known(name)) {
        Some(name) => Err(Error::UnknownMetric {
            name: name.clone(),
            known: all.iter().map(MetricRow::full_name).collect(),
        }),
        None => Ok(()),
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

    /// What is missing or no number stands last, whichever way is asked for.
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

fn reordered(runs: Vec<Report>, order: &[usize]) -> Vec<Report> {
    let mut runs: Vec<Option<Report>> = runs.into_iter().map(Some).collect();
    order.iter().filter_map(|&idx| runs[idx].take()).collect()
}
