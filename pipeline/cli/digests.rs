//! A file of digests: what came out somewhere else, to be held against a run.
//!
//! Written by hand beside published results, so it is short: an experiment's name, and of each stage that matters
//! the first digits of its artifact. Several entries may be of one experiment, as of several machines.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use tinylm_pipeline::read_plain;
use tinylm_registry::{Run, StageRow};

use crate::{
    failure::Failure,
    project::Project,
    verdict::{Told, Verdict},
};

/// Fewer digits than `show` prints tell little.
const DIGITS_MIN: usize = 8;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Published {
    experiment: String,
    /// Where it came out, in words.
    #[serde(default)]
    of: Option<String>,
    stages: BTreeMap<String, String>,
}

/// Holds what a run made against the entry of its experiment of which it has the most.
/// Of the stages that are `wanted`; of all where none is.
pub(crate) fn held_against(
    project: &Project,
    file: &Path,
    run: &Run,
    rows: &[StageRow],
    wanted: &[String],
) -> Result<Vec<Told>, Failure> {
    let path = project.current_dir.join(file);
    let shown = project.shown(&path);
    let wrong = |why: String| Failure::wrong(format!("`{shown}`: {why}"));
    let bytes = read_plain(&path).map_err(|error| wrong(error.to_string()))?;
    let mut all: Vec<Published> =
        serde_yaml::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    for digest in all.iter_mut().flat_map(|one| one.stages.values_mut()) {
        digest.make_ascii_lowercase();
    }
    check(&all).map_err(wrong)?;
    let ours = all.iter().filter(|one| one.experiment == run.experiment);
    let fits = |told: &Vec<Told>| {
        let n_good = told.iter().filter(|one| one.verdict.is_good()).count();
        (n_good, std::cmp::Reverse(told.len() - n_good))
    };
    // Of two that fit as well the first is meant.
    let best = ours
        .map(|one| held(one, rows, wanted))
        .rev()
        .max_by_key(fits);
    match best {
        Some(told) if !told.is_empty() => Ok(told),
        Some(_) => Err(wrong(format!(
            "it names no such stage of `{}`",
            run.experiment
        ))),
        None => Err(wrong(format!("it says nothing of `{}`", run.experiment))),
    }
}

fn check(all: &[Published]) -> Result<(), String> {
    for (stage, digest) in all.iter().flat_map(|one| &one.stages) {
        let is_digits = digest.chars().all(|c| c.is_ascii_hexdigit());
        if digest.len() < DIGITS_MIN || !is_digits {
            return Err(format!(
                "`{digest}` of `{stage}` is no digest of {DIGITS_MIN} digits or more"
            ));
        }
    }
    Ok(())
}

fn held(published: &Published, rows: &[StageRow], wanted: &[String]) -> Vec<Told> {
    let at = published
        .of
        .as_deref()
        .map_or(String::new(), |of| format!(" ({of})"));
    let named = published.stages.iter();
    let named = named.filter(|(stage, _)| wanted.is_empty() || wanted.contains(stage));
    let mut told: Vec<(usize, Told)> = named
        .map(|(stage, digest)| {
            let place = rows.iter().position(|row| row.name == *stage);
            let made = place.and_then(|place| rows[place].artifact.clone());
            let verdict = match &made {
                None => {
                    Verdict::Unmade(format!("{digest} is published{at}, and this run has none"))
                }
                Some(made) if made.starts_with(digest.as_str()) => Verdict::Same,
                Some(_) => Verdict::Differs(format!("{digest} is published{at}")),
            };
            let told = Told {
                stage: stage.clone(),
                artifact: made.unwrap_or_default(),
                verdict,
            };
            (place.unwrap_or(usize::MAX), told)
        })
        .collect();
    told.sort_by_key(|(place, _)| *place);
    told.into_iter().map(|(_, told)| told).collect()
}
