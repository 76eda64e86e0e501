//! Several runs side by side, as a value.
//!
//! Runs of one experiment line up by the names of their stages. Runs of different experiments do
//! not: one calls its model `base`, the other `model`. So stages are matched by name and kind
//! first, and what is left over by kind, in the order of the graph; settings, metrics, curves and
//! samples then follow their stage. A sweep is nothing special: it is a comparison with more runs.
//!
//! The first run is the one the others are measured against.

mod documents;
mod effects;
mod frame;
mod gather;
mod lines;
mod order;
pub(crate) mod row;
mod seeds;

use serde::Serialize;

pub use documents::{DocumentDifference, Unit, Unpaired, losses};
pub use effects::Effect;
pub use order::Sort;
pub use row::{CurveRow, MetricRow, SampleRow, SettingRow, SharedStage};
pub use seeds::{Group, SeedDifference, Spread, recipe, seeds};

use crate::{
    Error,
    curve::Curve,
    headline::headline_row,
    metric::{Part, selects},
    number::letter,
    report::{Cost, Report},
};
use gather::{curve_rows, metric_rows, sample_rows, setting_rows, shared_stages};
use lines::Lines;
use order::{order, reordered};

/// Which metrics are compared and in which order the runs stand.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// As `loss` or `perplexity.loss`; all when empty.
    pub metrics: Vec<String>,
    pub sort: Option<Sort>,
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
    /// Whether metrics were asked for by name.
    pub is_asked: bool,
    /// The effect of each value of each setting on the main metric, in three runs or more of one experiment.
    pub effects: Vec<Effect>,
    pub noise: Noise,
}

/// What chance explains: each source by itself.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Noise {
    pub groups: Vec<Group>,
    /// Each metric over the seeds of each group, where any group has several.
    pub spreads: Vec<Spread>,
    /// Against the first group, over seeds.
    pub seeds: Vec<SeedDifference>,
    /// Against the first group, over documents; see [`Comparison::pair_documents`].
    pub documents: Vec<DocumentDifference>,
    pub unpaired: Vec<Unpaired>,
}

/// Puts reports side by side.
pub fn compare(runs: Vec<Report>, selection: &Selection) -> Result<Comparison, Error> {
    let lines = Lines::of(&runs);
    let metrics = metric_rows(&runs, &lines, &selection.metrics);
    let settings = setting_rows(&runs, &lines);
    check_all_metrics(&runs, &lines, &selection.metrics)?;
    let order = order(&runs, &metrics, &settings, selection.sort.as_ref())?;
    let runs = reordered(runs, &order);
    // Everything is made again in the final order: the first run decides what others differ from.
    let lines = Lines::of(&runs);
    let metrics = metric_rows(&runs, &lines, &selection.metrics);
    let settings = setting_rows(&runs, &lines);
    let main = headline_row(&runs, &metrics);
    let is_one_experiment = runs
        .iter()
        .all(|run| run.run.experiment == runs[0].run.experiment);
    let effects = main
        .filter(|_| is_one_experiment)
        .map(|row| effects::of(&settings, row))
        .unwrap_or_default();
    let groups = seeds::groups(&runs, &settings);
    let is_asked = !selection.metrics.is_empty();
    let noise = Noise {
        spreads: seeds::spreads(&groups, &metrics, is_asked),
        seeds: seeds::differences(&groups, &metrics, is_asked),
        documents: Vec::new(),
        unpaired: Vec::new(),
        groups,
    };
    Ok(Comparison {
        noise,
        costs: runs.iter().map(Report::cost).collect(),
        main: main.map(MetricRow::full_name),
        effects,
        is_asked,
        curves: curve_rows(&runs, &lines, &selection.metrics),
        samples: sample_rows(&runs, &lines),
        shared: shared_stages(&runs, &lines),
        settings,
        metrics,
        runs,
    })
}

/// The losses of the parts of a whole, or the right answers of tasks.
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
            let Some(part) =
                Part::of(&row.metric).filter(|part| matches!(part.metric, "loss" | "acc"))
            else {
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
        wholes.retain(|whole| whole.parts.len() > 1 || whole.by == "task");
        wholes
    }

    /// Compares evaluations document by document. `read` returns the [`losses`] of an artifact;
    /// nothing where it has none, or is no longer there.
    pub fn pair_documents(&mut self, read: &dyn Fn(&str) -> Option<String>) {
        let noise = &mut self.noise;
        (noise.documents, noise.unpaired) = documents::differences(&self.runs, &noise.groups, read);
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
    let all = metric_rows(runs, lines, &[]);
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
