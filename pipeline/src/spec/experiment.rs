//! An experiment as it was understood: what planning and running are handed.

use std::{path::PathBuf, time::Duration};

use serde_json::Value;

use super::tree::Place;
use crate::{kind::Kind, resources::Resources};

/// One experiment, all its settings known.
#[derive(Debug, Clone)]
pub struct Experiment {
    pub name: String,
    /// The comment at the head of the file.
    pub about: String,
    pub file: PathBuf,
    /// The number that its runs are judged by, as `STAGE.METRIC`.
    pub headline: Option<String>,
    /// The folder in which TensorBoard's files are written as the run goes on.
    pub tensorboard: Option<PathBuf>,
    /// The file as written.
    pub text: String,
    pub seed: u64,
    pub left_out: LeftOut,
    /// Each after what it reads, otherwise in the order of the file.
    pub stages: Vec<StageSpec>,
    /// The settings of this one of a sweep's combinations.
    pub sweep_point: Vec<(String, Value)>,
}

/// One stage of an experiment.
#[derive(Debug, Clone)]
pub struct StageSpec {
    /// `base`, or `stories.base` for a stage of a file under `use`.
    pub name: String,
    pub kind: Kind,
    /// The stages that fill each role. A list of inputs for a kind whose roles the author
    /// names fills the roles `0`, `1`, ...
    pub inputs: Vec<(String, Vec<String>)>,
    /// The settings in canonical form: defaults filled in, paths absolute.
    pub with: Value,
    /// The settings that were written, after `extends`, `vars` and `-S`.
    pub given: Value,
    pub watch: Value,
    /// The file's seed, or `with.seed` where the kind has it.
    pub seed: u64,
    pub retries: u32,
    pub timeout: Option<Duration>,
    pub resources: Resources,
    /// The file whose lock holds this stage's pins.
    pub home_file: PathBuf,
    /// The files, folders and globs that its settings name, and where.
    pub paths: Vec<(PathBuf, Place)>,
    /// Where the stage's name stands; `None` in an experiment that was not read from its file.
    pub place: Option<Place>,
}

impl StageSpec {
    /// Returns the names of the stages it reads, role by role.
    pub fn reads(&self) -> impl Iterator<Item = &str> {
        let names = self.inputs.iter().flat_map(|(_, names)| names);
        names.map(String::as_str)
    }
}

/// What is left out of an experiment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LeftOut {
    /// The stages that `without` names.
    pub named: Vec<String>,
    /// Those that have lost a role by that, and the role.
    pub with_them: Vec<(String, String)>,
}

impl LeftOut {
    /// Returns every stage that is left out.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let with_them = self.with_them.iter().map(|(name, _)| name);
        self.named.iter().chain(with_them).map(String::as_str)
    }

    /// Returns every stage that is left out, and why.
    pub fn told(&self) -> impl Iterator<Item = (&str, String)> {
        let named = self.named.iter();
        let named = named.map(|name| (name.as_str(), "`without` names it".to_owned()));
        let with_them = self.with_them.iter().map(|(name, role)| {
            let why = match role.parse::<usize>() {
                Ok(_) => "one of its inputs is left out".to_owned(),
                Err(_) => format!("its `{role}` is left out"),
            };
            (name.as_str(), why)
        });
        named.chain(with_them)
    }

    /// Whether a path such as `stage.setting` is one of something that is left out.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.names().any(|name| {
            let rest = path.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with('.'))
        })
    }
}

/// The seed of an experiment that names none.
pub const SEED: u64 = 1337;
