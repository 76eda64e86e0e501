//! A run as others come to know it: the keys that it is of, and what is remembered of it.
//!
//! What a run found made was made by another, whose curves it shows: so that one's history goes with it.

use tinylm_registry::{Registry, RemoteError, Taken, Watch};
use tinylm_remote::{Remote, SharedRun, SharedStage};

use crate::failure::Failure;

/// A run of this home, by any of its names. Its histories are not given yet.
pub(crate) fn shared_run(registry: &Registry, name: &str) -> Result<SharedRun, Failure> {
    let run = registry.find_run(name)?;
    let stages = registry.stages(&run.id)?.into_iter().filter_map(|stage| {
        let key = stage.key?.parse().ok()?;
        let is_made = stage.artifact.is_some();
        is_made.then_some(SharedStage {
            name: stage.name,
            key,
        })
    });
    Ok(SharedRun {
        stages: stages.collect(),
        id: run.id,
        name: run.name,
        experiment: run.experiment,
        histories: Vec::new(),
    })
}

/// Gives a run to a remote that has its artifacts, or says why not.
pub(crate) fn give(
    registry: &Registry,
    remote: &Remote,
    mut run: SharedRun,
    watch: &dyn Watch,
) -> Result<(), Why> {
    // One that is at work has none yet, and its makers' alone would not be its own.
    if registry.history(&run.id)?.is_some() {
        for run_id in with_makers(registry, &run.id)? {
            if let Some(history) = registry.history(&run_id)? {
                run.histories.push(remote.write_history(&history, watch)?);
            }
        }
    }
    Ok(remote.write_run(&run, watch)?)
}

/// Takes what is remembered of a run into a registry, where something is.
pub(crate) fn take(
    registry: &Registry,
    remote: &Remote,
    run: &SharedRun,
    watch: &dyn Watch,
) -> Result<Option<Taken>, Why> {
    let mut taken = None;
    for digest in &run.histories {
        let history = remote.read_history(digest, watch)?;
        let is_last = Some(digest) == run.histories.last();
        if is_last && Registry::run_of_history(&history).as_ref() != Some(&run.id) {
            return Err(Why(format!(
                "it has no history of {} that can be read here",
                run.name
            )));
        }
        match registry.take_history(&history) {
            Ok(history) if is_last => taken = Some(history),
            Err(error) if is_last => return Err(error.into()),
            // Without its maker's history a run is known all the same.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(taken)
}

/// Runs that made what a run found, and last the run itself.
fn with_makers(registry: &Registry, run_id: &str) -> Result<Vec<String>, Why> {
    let mut runs = Vec::new();
    for stage in registry.stages(run_id)? {
        let execution = stage.execution_id.map(|id| registry.execution(&id));
        let maker = execution.transpose()?.flatten().map(|made| made.run_id);
        if let Some(maker) = maker.filter(|maker| maker != run_id && !runs.contains(maker)) {
            runs.push(maker);
        }
    }
    runs.push(run_id.to_owned());
    Ok(runs)
}

/// Why a run was neither given nor taken, in words.
#[derive(Debug)]
pub(crate) struct Why(pub(crate) String);

impl From<tinylm_registry::Error> for Why {
    fn from(error: tinylm_registry::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<RemoteError> for Why {
    fn from(error: RemoteError) -> Self {
        Self(error.to_string())
    }
}
