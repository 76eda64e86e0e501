//! Runs that differ only in their seed: one group, its spread, and what is more than that.
//!
//! Two runs are of one group when they have the same settings but seeds, the same stages reading each
//! other, and began with the same sources: that a file has changed is no noise of seeds. Nobody has to
//! say which runs belong together, and which experiment or sweep they came from does not matter.
//!
//! Groups are held against the first run's: seed by seed where both have the same, since a seed brings
//! the order of the data along, and as two heaps of numbers otherwise.

use std::fmt::Write;

use serde::Serialize;
use tinylm_registry::{Param, StageRow};

use super::row::{MetricRow, SettingRow};
use crate::{
    metric::{Better, Part},
    number::letter,
    report::Report,
    statistics::{Estimate, deviation, mean, paired, unpaired},
};

/// Runs that differ only in their seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// The settings that tell it from other groups: `lr=0.001`; empty where no setting does.
    pub name: String,
    /// One run of each seed, by their places.
    pub runs: Vec<usize>,
    pub seeds: Vec<String>,
}

/// A metric over the seeds of a group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub stage: String,
    pub metric: String,
    /// The group's place.
    pub group: usize,
    pub n_seeds: usize,
    pub mean: f64,
    /// Of what the seeds were drawn from (n - 1); none of a single one.
    pub deviation: Option<f64>,
    pub min: f64,
    pub max: f64,
}

/// By how much a group's mean of a metric differs from that of the first group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SeedDifference {
    pub stage: String,
    pub metric: String,
    pub better: Better,
    pub group: usize,
    pub by: f64,
    /// Whether the difference is of each seed's two runs.
    pub is_paired: bool,
    /// The seeds of the group, and of the first one.
    pub n_seeds: [usize; 2],
    /// None where one of them has a single seed.
    pub estimate: Option<Estimate>,
}

impl Group {
    /// Returns its runs by their letters: `A–E`, `B D`.
    pub(crate) fn letters(&self) -> String {
        let mut text = String::new();
        for run in self.runs.chunk_by(|a, b| a + 1 == *b) {
            let shown = match run {
                [first, _, .., last] => format!("{}–{}", letter(*first), letter(*last)),
                few => few
                    .iter()
                    .map(|idx| letter(*idx))
                    .collect::<Vec<_>>()
                    .join(" "),
            };
            let gap = if text.is_empty() { "" } else { " " };
            let _ = write!(text, "{gap}{shown}");
        }
        text
    }
}

/// Returns all that decides what a run makes but its seeds: equal for runs of one group.
pub fn recipe<'a>(settings: &[Param], stages: impl IntoIterator<Item = &'a StageRow>) -> String {
    let mut recipe = String::new();
    // What a variable decides stands in settings and inputs.
    let decides = |one: &&Param| decides(&one.name) && !one.name.starts_with("vars.");
    let mut settings: Vec<&Param> = settings.iter().filter(decides).collect();
    settings.sort_by(|a, b| a.name.cmp(&b.name));
    for setting in settings {
        let _ = writeln!(recipe, "{:?} {:?}", setting.name, setting.value);
    }
    for stage in stages {
        let source = match stage.reads().is_empty() {
            true => stage.artifact.as_deref().unwrap_or_default(),
            false => "",
        };
        let (name, kind) = (&stage.name, &stage.kind);
        let _ = writeln!(recipe, "{name:?} {kind:?} {} {source}", stage.inputs);
    }
    recipe
}

/// What is only watched decides nothing.
fn decides(setting: &str) -> bool {
    !is_seed(setting) && !setting.contains(".watch.")
}

pub(super) fn is_seed(setting: &str) -> bool {
    setting == "seed" || setting.ends_with(".seed")
}

/// Returns the run's seeds in words: one for all, or more where a stage has its own.
pub fn seeds(settings: &[Param]) -> String {
    let seeds = settings.iter().filter(|one| is_seed(&one.name));
    let words = seeds.map(|one| match one.name.as_str() {
        "seed" => one.value.clone(),
        name => format!("{name}={}", one.value),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Puts runs together that differ only in their seed, in the order of their first runs.
pub(super) fn groups(runs: &[Report], settings: &[SettingRow]) -> Vec<Group> {
    let mut groups: Vec<(String, Group)> = Vec::new();
    for (idx, run) in runs.iter().enumerate() {
        let rows = run.stages.iter().map(|stage| &stage.row);
        let (recipe, seed) = (recipe(&run.settings, rows), seeds(&run.settings));
        match groups.iter_mut().find(|(other, _)| *other == recipe) {
            // The same seed once more is the same run.
            Some((_, group)) if group.seeds.contains(&seed) => {}
            Some((_, group)) => {
                group.runs.push(idx);
                group.seeds.push(seed);
            }
            None => groups.push((
                recipe,
                Group {
                    name: String::new(),
                    runs: vec![idx],
                    seeds: vec![seed],
                },
            )),
        }
    }
    let mut groups: Vec<Group> = groups.into_iter().map(|(_, group)| group).collect();
    let names = names(&groups, settings);
    for (group, name) in groups.iter_mut().zip(names) {
        group.name = name;
    }
    groups
}

/// Names groups by the settings that differ between them.
fn names(groups: &[Group], settings: &[SettingRow]) -> Vec<String> {
    /// More settings than this name nothing.
    const SETTINGS_MAX: usize = 3;
    let value = |row: &SettingRow, group: &Group| row.values[group.runs[0]].clone();
    let tells = |row: &&SettingRow| {
        let first = value(row, &groups[0]);
        decides(&row.name) && groups.iter().any(|group| value(row, group) != first)
    };
    let telling: Vec<&SettingRow> = match groups.is_empty() {
        true => Vec::new(),
        false => settings.iter().filter(tells).collect(),
    };
    if telling.len() > SETTINGS_MAX {
        return vec![String::new(); groups.len()];
    }
    let name = |group: &Group| {
        let words = telling.iter().map(|row| {
            let end = row.name.rsplit('.').next().unwrap_or(&row.name);
            format!("{end}={}", value(row, group).as_deref().unwrap_or("–"))
        });
        words.collect::<Vec<_>>().join(" ")
    };
    groups.iter().map(name).collect()
}

/// Returns the metrics that can be better or worse, of the whole and not of its parts. How fast a
/// machine was is no work of a seed.
fn judging(metrics: &[MetricRow], is_asked: bool) -> impl Iterator<Item = (&MetricRow, Better)> {
    let judged = metrics.iter().filter_map(|row| Some((row, row.better?)));
    judged.filter(move |(row, _)| {
        is_asked || Part::of(&row.metric).is_none() && !row.metric.ends_with("per_second")
    })
}

/// Returns the finite values of a metric, with the seed of each.
fn values<'a>(row: &MetricRow, group: &'a Group) -> Vec<(&'a str, f64)> {
    let of_runs = group.runs.iter().zip(&group.seeds);
    let values = of_runs.filter_map(|(&run, seed)| Some((seed.as_str(), row.values[run]?)));
    values.filter(|(_, value)| value.is_finite()).collect()
}

/// Returns each metric of each group, where any group has several seeds.
pub(super) fn spreads(groups: &[Group], metrics: &[MetricRow], is_asked: bool) -> Vec<Spread> {
    if groups.iter().all(|group| group.runs.len() < 2) {
        return Vec::new();
    }
    let mut spreads = Vec::new();
    for (row, _) in judging(metrics, is_asked) {
        for (idx, group) in groups.iter().enumerate() {
            let values = numbers(&values(row, group));
            if values.is_empty() {
                continue;
            }
            spreads.push(Spread {
                stage: row.stage.clone(),
                metric: row.metric.clone(),
                group: idx,
                n_seeds: values.len(),
                mean: mean(&values),
                deviation: deviation(&values),
                min: values.iter().copied().fold(f64::INFINITY, f64::min),
                max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            });
        }
    }
    spreads
}

fn numbers(values: &[(&str, f64)]) -> Vec<f64> {
    values.iter().map(|(_, value)| *value).collect()
}

/// Returns how each group differs from the first one in each metric, where any has several seeds.
pub(super) fn differences(
    groups: &[Group],
    metrics: &[MetricRow],
    is_asked: bool,
) -> Vec<SeedDifference> {
    let mut differences = Vec::new();
    if groups.iter().all(|group| group.runs.len() < 2) {
        return differences;
    }
    for (row, better) in judging(metrics, is_asked) {
        for (idx, group) in groups.iter().enumerate().skip(1) {
            differences.extend(difference(row, better, (idx, group), &groups[0]));
        }
    }
    differences
}

/// Returns nothing where there is nothing to compare: no values, or the very same ones.
fn difference(
    row: &MetricRow,
    better: Better,
    (idx, group): (usize, &Group),
    first: &Group,
) -> Option<SeedDifference> {
    let (these, those) = (values(row, group), values(row, first));
    if these.is_empty() || those.is_empty() || these == those {
        return None;
    }
    let pairs: Vec<f64> = these
        .iter()
        .filter_map(|(seed, value)| {
            let other = those.iter().find(|(other, _)| other == seed)?;
            Some(value - other.1)
        })
        .collect();
    // Pairs say more, unless they leave most of what there is aside.
    let is_paired = !pairs.is_empty() && 2 * pairs.len() > these.len().max(those.len());
    let (these, those) = (numbers(&these), numbers(&those));
    Some(SeedDifference {
        stage: row.stage.clone(),
        metric: row.metric.clone(),
        better,
        group: idx,
        by: match is_paired {
            true => mean(&pairs),
            false => mean(&these) - mean(&those),
        },
        is_paired,
        n_seeds: match is_paired {
            true => [pairs.len(); 2],
            false => [these.len(), those.len()],
        },
        estimate: match is_paired {
            true => paired(&pairs),
            false => unpaired(&these, &those),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{dialogue, setting};

    /// A run of a rate with a seed.
    fn run(rate: &str, seed: &str) -> Report {
        let mut report = dialogue();
        report.settings[0] = setting("seed", seed, false);
        report.settings[3] = setting("base.train.lr", rate, false);
        report
    }

    fn row(values: &[f64]) -> MetricRow {
        let n = values.len();
        MetricRow {
            stage: "perplexity".to_owned(),
            metric: "loss".to_owned(),
            better: Some(Better::Lower),
            values: values.iter().map(|value| Some(*value)).collect(),
            errors: vec![None; n],
            is_last: vec![false; n],
            changes: vec![None; n],
            is_best: vec![false; n],
        }
    }

    fn grouped(runs: &[Report]) -> Vec<(String, Vec<usize>)> {
        let values = runs.iter().map(|run| Some(run.settings[3].value.clone()));
        let rates = SettingRow {
            name: "base.train.lr".to_owned(),
            values: values.collect(),
        };
        let groups = groups(runs, &[rates]);
        let told = groups.into_iter().map(|group| (group.name, group.runs));
        told.collect()
    }

    fn group(runs: &[usize], seeds: &[&str]) -> Group {
        Group {
            name: String::new(),
            runs: runs.to_vec(),
            seeds: seeds.iter().map(|seed| (*seed).to_owned()).collect(),
        }
    }

    #[test]
    fn runs_that_differ_only_in_their_seed_are_one_group_and_a_seed_counts_once() {
        let mut runs = vec![run("1", "7"), run("2", "7"), run("1", "8"), run("1", "7")];
        let found = grouped(&runs);
        assert_eq!(
            found,
            [
                ("lr=1".to_owned(), vec![0, 2]),
                ("lr=2".to_owned(), vec![1])
            ]
        );
        // What is only watched, and a variable that settings show, are no difference.
        runs[2]
            .settings
            .push(setting("base.watch.log_every", "5", false));
        runs[2].settings.push(setting("vars.rate", "1", false));
        assert_eq!(grouped(&runs), found);
        // Another file of data, or another stage that is read, is.
        runs[2].stages[0].row.artifact = Some("other".to_owned());
        assert_eq!(grouped(&runs).len(), 3);
        let mut other = run("1", "9");
        other.stages[3].row.inputs = serde_json::json!({ "model": ["answers"] });
        assert_eq!(grouped(&[run("1", "7"), other]).len(), 2);
    }

    #[test]
    fn groups_are_compared_seed_by_seed_where_both_have_them() {
        let metrics = [row(&[1.0, 2.0, 3.0, 1.1, 2.12, 3.08])];
        let compared = |seeds: [&str; 3]| {
            let groups = [
                group(&[0, 1, 2], &["1", "2", "3"]),
                group(&[3, 4, 5], &seeds),
            ];
            differences(&groups, &metrics, false).remove(0)
        };
        let same = compared(["1", "2", "3"]);
        assert!(same.is_paired && same.estimate.unwrap().is_beyond_noise());
        assert!((same.by - 0.1).abs() < 1e-12);
        let others = compared(["4", "5", "6"]);
        assert!(!others.is_paired && !others.estimate.unwrap().is_beyond_noise());
        // Two of three are compared as pairs, one of three is not.
        assert_eq!(compared(["1", "2", "6"]).n_seeds, [2, 2]);
        assert_eq!(compared(["1", "5", "6"]).n_seeds, [3, 3]);
    }

    #[test]
    fn of_one_seed_there_is_a_difference_and_nothing_about_it() {
        let metrics = [row(&[1.0, 1.1, 2.0])];
        let groups = [group(&[0, 1], &["1", "2"]), group(&[2], &["1"])];
        let difference = differences(&groups, &metrics, false).remove(0);
        assert_eq!((difference.by, difference.estimate), (1.95 - 1.0, None));
        let spreads = spreads(&groups, &metrics, false);
        assert_eq!((spreads[0].n_seeds, spreads[1].deviation), (2, None));
        assert!((spreads[0].deviation.unwrap() - 0.0707).abs() < 1e-4);
        // Runs of one seed each are no groups of seeds.
        let alone = [group(&[0], &["1"]), group(&[2], &["1"])];
        assert_eq!(super::differences(&alone, &metrics, false), []);
        assert_eq!(super::spreads(&alone, &metrics, false), []);
    }

    #[test]
    fn neighbours_are_told_by_the_first_and_the_last() {
        assert_eq!(group(&[0, 1, 2, 4, 5], &[]).letters(), "A–C E F");
    }
}
