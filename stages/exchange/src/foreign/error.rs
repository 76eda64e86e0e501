//! Why a model of another program cannot be taken.

use std::{
    io,
    path::{Path, PathBuf},
};

use tinylm_model::{config::ConfigError, weights::WeightsError};

#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("`{}` is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("`{field}` is missing")]
    MissingField { field: String },
    #[error("`{field}` is {value}, and {reason}")]
    Field {
        field: String,
        value: String,
        reason: String,
    },
    #[error("the tensor `{name}` is missing")]
    MissingTensor { name: String },
    #[error("the tensor `{name}` has the shape {found:?}, where {expected:?} is expected")]
    Shape {
        name: String,
        found: Vec<usize>,
        expected: Vec<usize>,
    },
    #[error("the tensor `{name}` has no place in a model of ours")]
    UnknownTensor { name: String },
    #[error("the tensor `{name}` is there twice, in two of `{paths}`")]
    Twice { name: String, paths: String },
    #[error("the tensor `{name}` holds {number}, which is no number to compute with")]
    NotFinite { name: String, number: f32 },
    #[error("the tensor `{name}` is stored as {kind}, which is not read here")]
    Kind { name: String, kind: String },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

pub(super) fn read_error(path: &Path, source: io::Error) -> ForeignError {
    let path = path.to_owned();
    ForeignError::Read { path, source }
}
