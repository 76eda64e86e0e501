//! A file of digests: what came out somewhere else, to be held against a run.
//!
//! Written by hand beside published results, so it is short: an experiment's name, and of each stage that matters
//! the first digits of its artifact. Several entries may be of one experiment, as of several machines.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use tinylm_pipeline::read_plain;
use tinylm_registry::{Run, StageRow};

use crate::{failure::Failure, project::Project, verdict::Verdict};

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
pub(crate) fn held_against<'r>(
    project: &Project,
    file: &Path,
    run: &Run,
    rows: &[&'r StageRow],
) -> Result<Vec<(&'r StageRow, Verdict)>, Failure> {
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
    let fits = |told: &Vec<(&StageRow, Verdict)>| {
        let n_good = told.iter().filter(|(_, verdict)| verdict.is_good()).count();
        (n_good, std::cmp::Reverse(told.len() - n_good))
    };
    // Of two that fit as well the first is meant.
    let best = ours.map(|one| held(one, rows)).rev().max_by_key(fits);
    match best {
        Some(told) if !told.is_empty() => Ok(told),
        Some(_) => Err(wrong(format!("it names no stage that {} made", run.name))),
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

fn held<'r>(published: &Published, rows: &[&'r StageRow]) -> Vec<(&'r StageRow, Verdict)> {
    let at = published
        .of
        .as_deref()
        .map_or(String::new(), |of| format!(" ({of})"));
    let named = rows.iter().filter_map(|row| {
        let digest = published.stages.get(&row.name)?;
        let made = row.artifact.as_deref().unwrap_or_default();
        let verdict = match made.starts_with(digest.as_str()) {
            true => Verdict::Same,
            false if made.is_empty() => Verdict::Unmade(format!(
                "{digest} is published{at}, and this run did not make it"
            )),
            false => {
                let made = &made[..DIGITS_MIN.min(made.len())];
                Verdict::Differs(format!("{made}, and {digest} is published{at}"))
            }
        };
        Some((*row, verdict))
    });
    named.collect()
}
