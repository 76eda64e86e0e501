//! The experiment file: one YAML file read into stages, typed and in order.
//!
//! It promises that a file is either understood whole or refused with all of its
//! mistakes at once, each pointing at the text that its author has to change, and that
//! reading writes nothing. Data flows through the files of this module in this order:
//!
//! | file | does |
//! |---|---|
//! | `request` | the file, `-S` and `--sweep` of one command |
//! | `yaml` | text to a tree whose values know their places |
//! | `files` | reads the file, what it extends and what it uses |
//! | `extends` | lays one tree over another |
//! | `edit` | `-S` and sweeps put values into the tree |
//! | `vars` | `${name}` in values |
//! | `without` | takes stages out, and what then has nothing left to read |
//! | `check` | each `with` against what its kind declares |
//! | `graph` | references between stages, and their order |
//! | `watch` | what is written while it runs, for others to look at |
//! | `roles`, `limits` | what fills a stage's roles; its `retries` and `timeout` |
//! | `resources` | what it asks of a scheduler |
//! | `experiment` | the result: stages whose settings are all known |
//! | `resolved` | an experiment as plain data, for `resume` |
//!
//! Editing a tree rather than typed settings keeps the author's own words in reach of
//! every message, and lets one rule say what `-S`, `extends` and a sweep mean: what the
//! file would mean had it been written so.

mod check;
mod deeper;
mod diagnostic;
mod edit;
mod experiment;
mod extends;
mod files;
mod graph;
pub mod keys;
mod limits;
mod nearest;
mod paths;
mod request;
mod resolved;
mod resources;
mod roles;
mod tree;
mod vars;
mod watch;
mod without;
mod yaml;

#[cfg(test)]
mod tests;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use experiment::{Experiment, LeftOut, SEED, StageSpec};
pub use files::load;
pub(crate) use limits::parse_duration;
pub use nearest::nearest;
pub use request::Request;
pub use resolved::ResolvedError;
pub use tree::{Place, Source};
