//! Faults of a question.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::fit::LeftOut;

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
    #[error("a law of five parameters takes {wanted}; {found}")]
    TooFewRuns {
        wanted: &'static str,
        found: String,
        left_out: Vec<LeftOut>,
    },
    #[error("`{}` cannot be held against a prediction: {}", .0.run, .0.why)]
    Unpredictable(LeftOut),
    #[error("there is no run to report")]
    NoRuns,
}
