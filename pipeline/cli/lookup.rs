//! Finding runs and stages by the names that a person gives.

use std::collections::HashSet;

use tinylm_registry::{Registry, Run, RunQuery, StageRow, Status};

use crate::{failure::Failure, project::quoted};

/// Finds every run that is named, or tells of all that are not there.
pub(crate) fn find_runs<'a>(
    registry: &Registry,
    names: impl IntoIterator<Item = &'a String>,
) -> Result<Vec<Run>, Failure> {
    let (mut runs, mut unknown) = (Vec::new(), Vec::new());
    for name in names {
        match registry.find_run(name) {
            Ok(run) => runs.push(run),
            Err(error) => unknown.push(Failure::from(error)),
        }
    }
    Failure::all(unknown).map(|()| runs)
}

/// Finds the run of RUN or RUN/STAGE, and all of its stages.
pub(crate) fn find_stages(
    registry: &Registry,
    name: &str,
) -> Result<(Run, Vec<StageRow>), Failure> {
    let run = registry.find_run(name.split_once('/').map_or(name, |(run, _)| run))?;
    let stages = registry.stages(&run.id)?;
    Ok((run, stages))
}

pub(crate) fn find_stage<'a>(
    stages: &'a [StageRow],
    run: &Run,
    name: &str,
) -> Result<&'a StageRow, Failure> {
    stages
        .iter()
        .find(|stage| stage.name == name)
        .ok_or_else(|| {
            let names = || stages.iter().map(|stage| stage.name.as_str());
            let failure = Failure::wrong(format!("{} has no stage `{name}`", run.name));
            match tinylm_pipeline::spec::nearest(name, names()) {
                Some(near) => failure.help(format!("did you mean `{near}`?")),
                None => failure.help(format!("it has {}", quoted(names()))),
            }
        })
}

/// Returns all runs of a run's sweep, in the order in which they ran.
pub(crate) fn runs_of_its_sweep(registry: &Registry, run: &Run) -> Result<Vec<Run>, Failure> {
    match &run.sweep {
        Some(sweep) => runs_of_sweep(registry, sweep),
        None => Err(
            Failure::wrong(format!("`{}` belongs to no sweep", run.name))
                .help("`report --compare A B` puts any runs side by side"),
        ),
    }
}

/// The same by the sweep's uuid.
pub(crate) fn runs_of_sweep(registry: &Registry, sweep: &str) -> Result<Vec<Run>, Failure> {
    let mut runs = registry.runs(&RunQuery::default())?;
    runs.retain(|run| run.sweep.as_deref() == Some(sweep));
    // Runs come newest first.
    runs.reverse();
    Ok(runs)
}

/// Returns the runs, each followed by the finished ones of its experiment that differ from it only
/// in their seed: the last of each seed, oldest first.
pub(crate) fn with_their_seeds(registry: &Registry, runs: Vec<Run>) -> Result<Vec<Run>, Failure> {
    let is_candidate = |other: &Run| {
        other.status == Status::Done && runs.iter().any(|run| run.experiment == other.experiment)
    };
    let mut others = Vec::new();
    // Runs come newest first.
    for run in registry.runs(&RunQuery::default())? {
        if is_candidate(&run) {
            others.push((recipe_and_seeds(registry, &run)?, run));
        }
    }
    let mut all = Vec::new();
    for run in runs {
        let (recipe, seeds) = recipe_and_seeds(registry, &run)?;
        let mut seen = HashSet::from([&seeds]);
        let fits = others
            .iter()
            .filter(|((other, seeds), _)| *other == recipe && seen.insert(seeds));
        let kin: Vec<Run> = fits.map(|(_, other)| other.clone()).collect();
        all.push(run);
        all.extend(kin.into_iter().rev());
    }
    Ok(all)
}

fn recipe_and_seeds(registry: &Registry, run: &Run) -> Result<(String, String), Failure> {
    let settings = registry.params(&run.id)?;
    let stages = registry.stages(&run.id)?;
    Ok((
        tinylm_reports::recipe(&settings, &stages),
        tinylm_reports::seeds(&settings),
    ))
}

/// A run's tags, as people write them.
pub(crate) fn tags(run: &Run) -> String {
    let tags: Vec<String> = run.tags.iter().map(|tag| format!("#{tag}")).collect();
    tags.join(" ")
}
