//! What goes wrong where a model speaks, and what helps.

use tinylm_model::generate::{FeedError, GenerateError, OpenError};
use tinylm_pipeline::StageError;

use crate::shared::tokens::TokensError;

#[derive(Debug, thiserror::Error)]
pub enum SpeakError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Tokens(#[from] TokensError),
    #[error(
        "the tokenizer has {tokens} tokens and the model {vocab_size}: they do not belong together"
    )]
    Mismatch { tokens: usize, vocab_size: usize },
    #[error(transparent)]
    Generate(#[from] GenerateError),
    #[error(transparent)]
    Feed(#[from] FeedError),
    #[error("`{0}` of the prompt is outside what the model can read")]
    Id(u32),
    #[error("threads cannot be started: {0}")]
    Threads(String),
}

impl SpeakError {
    /// What helps where it is the GPU's fault, so that another device, or the same one later, may do.
    pub fn help(&self) -> Option<&'static str> {
        let is_of_device = match self {
            SpeakError::Open(error) => matches!(error, OpenError::Device(_)),
            SpeakError::Feed(error) | SpeakError::Generate(GenerateError::Feed(error)) => {
                matches!(error, FeedError::Device(_))
            }
            _ => false,
        };
        is_of_device.then_some("`--device cpu` reads it here; `tinylm doctor` tells of the GPU")
    }
}

impl From<SpeakError> for StageError {
    fn from(error: SpeakError) -> StageError {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let failed = StageError::new(error.to_string());
        let mut failed = match error.help() {
            Some(help) => failed.help(help),
            None => failed.is_final(),
        };
        failed.cause = cause.filter(|cause| *cause != failed.message);
        failed
    }
}
