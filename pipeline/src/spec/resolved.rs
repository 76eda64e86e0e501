//! An experiment as plain data: what the registry records, and `resume` reads back.
//!
//! It holds settings rather than the file, because the file may have changed since, and what
//! an interrupted run goes on with is what it began with.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::experiment::{Experiment, LeftOut, StageSpec};
use crate::{
    kind::Kind,
    resources::Resources,
    settings::{SettingError, plain, with_defaults},
};

/// Why a recorded experiment cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum ResolvedError {
    #[error("the recorded experiment is not whole: {0}")]
    Broken(#[from] serde_json::Error),
    #[error("stage `{stage}` is of the kind `{kind}`, which this version does not have")]
    UnknownKind { stage: String, kind: String },
    #[error("stage `{stage}` reads `{input}`, which is not recorded before it")]
    UnknownInput { stage: String, input: String },
    #[error("stage `{stage}` has settings that this version does not understand")]
    Settings { stage: String, source: SettingError },
}

#[derive(Serialize, Deserialize)]
struct Recorded {
    name: String,
    about: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    headline: Option<String>,
    file: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tensorboard: Option<PathBuf>,
    seed: u64,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    sweep: Map<String, Value>,
    stages: Vec<RecordedStage>,
}

#[derive(Serialize, Deserialize)]
struct RecordedStage {
    name: String,
    kind: String,
    /// Role to stages, in order.
    inputs: Map<String, Value>,
    with: Value,
    given: Value,
    watch: Value,
    seed: u64,
    retries: u32,
    timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    resources: Resources,
    home_file: PathBuf,
}

impl Experiment {
    /// Returns all that `from_resolved` needs; the file's text is not part of it.
    pub fn resolved(&self) -> Value {
        plain(&Recorded {
            name: self.name.clone(),
            about: self.about.clone(),
            headline: self.headline.clone(),
            file: self.file.clone(),
            tensorboard: self.tensorboard.clone(),
            seed: self.seed,
            sweep: self.sweep_point.iter().cloned().collect(),
            stages: self.stages.iter().map(recorded).collect(),
        })
    }

    /// Reads back what `resolved` returned. The text is empty and stages have no place.
    pub fn from_resolved(value: &Value, catalog: &[Kind]) -> Result<Self, ResolvedError> {
        let recorded = Recorded::deserialize(value)?;
        let stages = recorded.stages.into_iter();
        let stages: Vec<StageSpec> = stages
            .map(|stage| restored(stage, catalog))
            .collect::<Result<_, _>>()?;
        check_order(&stages)?;
        Ok(Self {
            name: recorded.name,
            about: recorded.about,
            headline: recorded.headline,
            file: recorded.file,
            tensorboard: recorded.tensorboard,
            text: String::new(),
            seed: recorded.seed,
            left_out: LeftOut::default(),
            stages,
            sweep_point: recorded.sweep.into_iter().collect(),
        })
    }
}

fn check_order(stages: &[StageSpec]) -> Result<(), ResolvedError> {
    let mut before = HashSet::new();
    for stage in stages {
        let mut read = stage.inputs.iter().flat_map(|(_, stages)| stages);
        if let Some(input) = read.find(|input| !before.contains(input.as_str())) {
            return Err(ResolvedError::UnknownInput {
                stage: stage.name.clone(),
                input: input.clone(),
            });
        }
        before.insert(stage.name.as_str());
    }
    Ok(())
}

fn recorded(stage: &StageSpec) -> RecordedStage {
    let inputs = stage.inputs.iter();
    let timeout = stage.timeout.map(|timeout| timeout.as_millis());
    RecordedStage {
        name: stage.name.clone(),
        kind: stage.kind.name.to_owned(),
        inputs: inputs
            .map(|(role, stages)| (role.clone(), Value::from(stages.clone())))
            .collect(),
        with: stage.with.clone(),
        given: stage.given.clone(),
        watch: stage.watch.clone(),
        seed: stage.seed,
        retries: stage.retries,
        timeout_ms: timeout.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
        resources: stage.resources.clone(),
        home_file: stage.home_file.clone(),
    }
}

fn restored(stage: RecordedStage, catalog: &[Kind]) -> Result<StageSpec, ResolvedError> {
    let Some(kind) = catalog.iter().find(|kind| kind.name == stage.kind) else {
        return Err(ResolvedError::UnknownKind {
            stage: stage.name,
            kind: stage.kind,
        });
    };
    let refused = |source| ResolvedError::Settings {
        stage: stage.name.clone(),
        source,
    };
    // A version later than the recording may have settings that it did not know.
    let with = with_defaults(&(kind.settings)(), &stage.with);
    let with = (kind.canonical)(&with).map_err(refused)?;
    let watch = with_defaults(&(kind.watch)(), &stage.watch);
    let watch = (kind.canonical_watch)(&watch).map_err(refused)?;
    let inputs = stage.inputs.into_iter();
    let inputs = inputs.map(|(role, stages)| Ok((role, serde_json::from_value(stages)?)));
    Ok(StageSpec {
        inputs: inputs.collect::<Result<_, serde_json::Error>>()?,
        name: stage.name,
        kind: *kind,
        with,
        given: stage.given,
        watch,
        seed: stage.seed,
        retries: stage.retries,
        timeout: stage.timeout_ms.map(Duration::from_millis),
        resources: stage.resources,
        home_file: stage.home_file,
        paths: Vec::new(),
        place: None,
    })
}
