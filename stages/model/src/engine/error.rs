//! Why an engine cannot do what it is asked.

use crate::config::ConfigError;

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("`{name}` has shape {found:?}, the model needs {expected:?}")]
    Shape {
        name: String,
        found: Vec<usize>,
        expected: Vec<usize>,
    },
    #[error("`{0}` is missing")]
    MissingTensor(String),
    #[error("`{0}` is not part of this model")]
    UnknownTensor(String),
    #[error("the batch is not usable: {0}")]
    Batch(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("device: {0}")]
    Device(String),
}
