//! Faults of a question.

use std::{io, path::PathBuf};

use thiserror::Error;

#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    Registry(#[from] tinylm_registry::Error),
    #[error("no run has a metric `{name}`")]
    UnknownMetric { name: String, known: Vec<String> },
    #[error("runs cannot be sorted by `{name}`")]
    UnknownSort { name: String, known: Vec<String> },
    #[error("`{}`: {}", .0.display(), .1)]
    File(PathBuf, io::Error),
    #[error("there is no run to report")]
    NoRuns,
}
