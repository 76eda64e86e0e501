//! What can be wrong with a question.

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
    #[error("there is no run to report")]
    NoRuns,
}

impl Error {
    /// Returns what could have been meant.
    pub fn help(&self) -> Option<String> {
        let (what, known) = match self {
            Error::UnknownMetric { known, .. } => ("there are", known),
            Error::UnknownSort { known, .. } => ("one of", known),
            Error::Registry(_) | Error::NoRuns => return None,
        };
        (!known.is_empty()).then(|| {
            format!(
                "{what} {}",
                known
                    .iter()
                    .map(|name| format!("`{name}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        })
    }
}
