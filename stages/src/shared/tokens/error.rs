//! Why a tokenizer cannot be used, or a text not be encoded with it.

use std::path::PathBuf;

use super::ID_MAX;

#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    #[error("cannot read `{path}`: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot parse `{path}`: {source}")]
    Parse {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("`{path}` is not a tokenizer that can be used here: {reason}")]
    Unusable { path: PathBuf, reason: String },
    #[error("the tokenizer has no special token `{name}`, which the template `{template}` writes")]
    MissingSpecial { name: String, template: String },
    #[error("the largest id is {id}, and shards hold ids up to {ID_MAX}")]
    TooLarge { id: u32 },
    #[error("a text of {bytes} bytes cannot be encoded: {reason}")]
    Encode { bytes: usize, reason: String },
    #[error("the text holds `{name}`, and the vocabulary cannot spell it in ordinary tokens")]
    Unspellable { name: String },
    #[error("these ids cannot be decoded: {reason}")]
    Decode { reason: String },
}
