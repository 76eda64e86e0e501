//! Which numbers of a run are its N, its D and its L, and which runs have all three.
//!
//! N is `parameters` of the training: every weight, the embedding too, as a plan tells it and a person
//! would type it, and as it is multiplied where the head is the embedding (a tiny model spends much of
//! its time there, so a count without it would make C = 6 N D far too small). D is `tokens` of the same
//! training, from random weights. L is one and the same metric for all runs: what was asked for, else
//! the loss of an `evaluate`, else the last validation loss of the training; the first of these that
//! most runs have. Losses can be compared only when they are of the same held-back text in the same
//! tokens, so a run that was measured on other data than most is left out.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{law::Scale, left_out::LeftOut};
use crate::{
    comparison::{Comparison, MetricRow},
    number::number,
    report::{Report, Stage},
};

/// A run that tells all three numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    pub run: String,
    #[serde(flatten)]
    pub at: Scale,
    pub loss: f64,
    /// How often the training read its data.
    pub epochs: Option<f64>,
}

/// What is known of the runs, in their order.
pub(super) struct Measures {
    /// The metric that is L, as `STAGE.METRIC`.
    pub(super) metric: String,
    pub(super) runs: Vec<Result<Told, LeftOut>>,
}

impl Measures {
    pub(super) fn of(comparison: &Comparison) -> Measures {
        let row = loss_row(comparison);
        let metric = row.map_or("loss".to_owned(), MetricRow::full_name);
        let value = |idx: usize| row.and_then(|row| row.values[idx]);
        let runs = comparison.runs.iter().enumerate();
        let told: Vec<_> = runs
            .map(|(idx, report)| told(report, row, value(idx)).map_err(|why| (report, why)))
            .collect();
        let usual = usual(told.iter().flatten().map(|(_, data)| data.as_str()));
        let runs = told.into_iter().map(|told| match told {
            Ok((told, data)) if data == usual => Ok(told),
            Ok((told, _)) => Err(LeftOut {
                run: told.run,
                why: format!("its {metric} is of other data than that of most runs"),
            }),
            Err((report, why)) => Err(LeftOut {
                run: report.run.name.clone(),
                why,
            }),
        });
        Measures {
            runs: runs.collect(),
            metric,
        }
    }
}

/// Returns the metric that is L.
fn loss_row(comparison: &Comparison) -> Option<&MetricRow> {
    let rank = |row: &MetricRow| match (kind(comparison, row), row.metric.as_str()) {
        _ if comparison.is_asked => Some(0),
        (Some("evaluate"), "loss") => Some(2),
        (Some("pretrain"), "validation_loss") => Some(1),
        _ => None,
    };
    let n_values = |row: &MetricRow| row.values.iter().flatten().count();
    // Of several that are as good, the one farthest along the graph.
    let rows = comparison.metrics.iter();
    let rows = rows.filter_map(|row| Some((n_values(row), rank(row)?, row)));
    rows.max_by_key(|(n_values, rank, _)| (*n_values, *rank))
        .map(|(_, _, row)| row)
}

fn kind<'a>(comparison: &'a Comparison, row: &MetricRow) -> Option<&'a str> {
    let mut runs = comparison.runs.iter();
    let stage = runs.find_map(|report| report.stage(&row.stage))?;
    Some(&stage.row.kind)
}

/// Returns what a run tells, and the digests of the data that its loss is of.
fn told(
    report: &Report,
    row: Option<&MetricRow>,
    loss: Option<f64>,
) -> Result<(Told, String), String> {
    let (Some(row), Some(loss)) = (row, loss) else {
        return Err(match row {
            Some(row) => format!("it has no {}", row.full_name()),
            None => "no `evaluate` and no validation tells its loss".to_owned(),
        });
    };
    if !loss.is_finite() || loss <= 0.0 {
        return Err(format!("its {} is {}", row.full_name(), number(loss)));
    }
    let measured = report.stage(&row.stage);
    let training = match measured {
        Some(stage) if stage.row.kind != "pretrain" => trained(report, stage)?,
        Some(stage) => stage,
        None => the_training(report)?,
    };
    let name = training.row.name.as_str();
    let recorded = |metric: &str| {
        let found = report.final_value(name, metric);
        let missing = || format!("`{name}` recorded no {metric}: it was not trained to its end");
        found.filter(|n| *n > 0.0).ok_or_else(missing)
    };
    let told = Told {
        run: report.run.name.clone(),
        at: Scale {
            weights: recorded("parameters")?,
            tokens: recorded("tokens")?,
        },
        loss,
        epochs: report.final_value(name, "epochs"),
    };
    Ok((told, data(report, measured.unwrap_or(training))))
}

/// Returns the training of the model that a stage reads.
fn trained<'a>(report: &'a Report, stage: &Stage) -> Result<&'a Stage, String> {
    let mut trained = None;
    for (_, name) in inputs(stage) {
        let Some(input) = report.stage(name) else {
            continue;
        };
        match input.row.kind.as_str() {
            "pretrain" => trained = Some(input),
            "finetune" | "import" => {
                let (name, kind) = (&input.row.name, &input.row.kind);
                return Err(format!(
                    "its model `{name}` is of `{kind}`, and the law is of trainings from random weights"
                ));
            }
            _ => {}
        }
    }
    trained.map_or_else(|| the_training(report), Ok)
}

/// Returns the only training from random weights of a run.
fn the_training(report: &Report) -> Result<&Stage, String> {
    let is_training = |stage: &&Stage| stage.row.kind == "pretrain";
    let mut trainings = report.stages.iter().filter(is_training);
    match (trainings.next(), trainings.next()) {
        (Some(training), None) => Ok(training),
        (None, _) => Err("it trains no model from random weights".to_owned()),
        _ => Err("it trains several models, and the loss does not say of which it is".to_owned()),
    }
}

/// Returns the digests of all that a stage reads beside a model.
fn data(report: &Report, stage: &Stage) -> String {
    let names = inputs(stage).filter(|(role, _)| *role != "model");
    let artifacts = names.filter_map(|(_, name)| report.stage(name)?.row.artifact.as_deref());
    let mut artifacts: Vec<&str> = artifacts.collect();
    artifacts.sort_unstable();
    artifacts.join(" ")
}

/// Returns the roles of a stage's inputs and who fills them.
fn inputs(stage: &Stage) -> impl Iterator<Item = (&str, &str)> {
    let roles = stage.row.inputs.as_object().into_iter().flatten();
    roles.flat_map(|(role, names)| {
        let names = names.as_array().into_iter().flatten();
        names.filter_map(|name| Some((role.as_str(), name.as_str()?)))
    })
}

/// Returns what occurs most often.
fn usual<'a>(all: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, n)| *n);
    most.map_or_else(String::new, |(one, _)| one.to_owned())
}
