//! The experiment file: one YAML file read into stages, typed and in order.
//!
//! It promises that a file is either understood whole or refused with all of its
//! mistakes at once, each pointing at the text that its author has to change, and that
//! reading writes nothing. Data flows through the files of this module in this order:
//!
//! | file | does |
//! |---|---|
//! | `yaml` | text to a tree whose values know their places |
//! | `files` | reads the file, what it extends and what it uses |
//! | `extends` | lays one tree over another |
//! | `edit` | `-S` and sweeps put values into the tree |
//! | `vars` | `${name}` in values |
//! | `check` | each `with` against what its kind declares |
//! | `graph` | references between stages, and their order |
//! | `resolved` | an experiment as plain data, for `resume` |
//!
//! Editing a tree rather than typed settings keeps the author's own words in reach of
//! every message, and lets one rule say what `-S`, `extends` and a sweep mean: what the
//! file would mean had it been written so.

use std::{path::PathBuf, time::Duration};

use serde_json::Value;

use crate::stage::Kind;

mod check;
mod diagnostic;
mod edit;
mod extends;
mod files;
mod graph;
mod nearest;
mod resolved;
mod tree;
mod vars;
mod yaml;

#[cfg(test)]
mod tests;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use nearest::nearest;
pub use resolved::ResolvedError;
pub use tree::{Place, Source};

/// What a file is read with.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub file: PathBuf,
    /// `-S STAGE.path=value`, `-S seed=1`, `-S vars.x=value`.
    pub overrides: Vec<String>,
    /// `--sweep STAGE.path=a,b`.
    pub sweep: Vec<String>,
    /// What `file` and the paths in `overrides` count from; absolute.
    pub current_dir: PathBuf,
}

/// One experiment, all its settings known.
#[derive(Debug, Clone)]
pub struct Experiment {
    pub name: String,
    /// The comment at the head of the file.
    pub about: String,
    pub file: PathBuf,
    /// The file as written.
    pub text: String,
    pub seed: u64,
    /// Each after what it reads, otherwise in the order of the file.
    pub stages: Vec<StageSpec>,
    /// What a sweep set in this one of its combinations.
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
    /// The file whose lock holds this stage's pins.
    pub home_file: PathBuf,
    /// Where the stage's name stands; `None` in an experiment that was not read from its file.
    pub place: Option<Place>,
}

/// The seed of an experiment that names none.
pub const SEED: u64 = 1337;

/// Reads an experiment: one for each combination of a sweep, which is usually one.
pub fn load(request: &Request, catalog: &[Kind]) -> Result<Vec<Experiment>, Diagnostics> {
    files::load(request, catalog)
}
