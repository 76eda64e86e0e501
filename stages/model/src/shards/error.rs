//! Shards that cannot be read, and what to do about it.

use std::{io, path::PathBuf};

use super::format::{INDEX_NAME, VERSION};

#[derive(Debug, thiserror::Error)]
pub enum ShardsError {
    #[error("cannot read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot parse `{path}`")]
    Parse {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("`{path}` has version {found}, this program reads version {VERSION}")]
    Version { path: PathBuf, found: u32 },
    #[error("{INDEX_NAME} names `{path}`, which is no file of its folder")]
    Name { path: PathBuf },
    #[error("the shards hold pairs of answers, of which one is worse and not to be learnt")]
    Pairs,
    #[error("the shards hold no pairs of answers")]
    NoPairs,
    #[error("the shards hold half a pair in `{split}`")]
    HalfPair { split: String },
    #[error("the shards have no `{split}` documents")]
    EmptySplit { split: String },
    #[error("`{path}` has {found} bytes and must have {expected} (as many as {INDEX_NAME} says)")]
    Length {
        path: PathBuf,
        expected: u64,
        found: u64,
    },
    #[error("`{path}` lists document {document} at token {found}, which {problem}")]
    Record {
        path: PathBuf,
        document: usize,
        found: u64,
        problem: &'static str,
    },
    #[error("`{path}` gives document {document} the source {found}, and there are {n_sources}")]
    Source {
        path: PathBuf,
        document: usize,
        found: u16,
        n_sources: usize,
    },
    #[error("the index gives `{path}` the source {found}, and there are {n_sources}")]
    SourceOfFile {
        path: PathBuf,
        found: u32,
        n_sources: usize,
    },
    #[error("`{path}` holds id {found} at token {token}, and the vocabulary has {vocab_size}")]
    Id {
        path: PathBuf,
        token: usize,
        found: u16,
        vocab_size: usize,
    },
    #[error("`{path}` holds the unknown role {found} at token {token}")]
    Role {
        path: PathBuf,
        token: usize,
        found: u8,
    },
    #[error("`{path}` counts {expected} {what} in `{split}`, and its files hold {found}")]
    Count {
        path: PathBuf,
        split: String,
        what: &'static str,
        expected: u64,
        found: u64,
    },
}

impl ShardsError {
    /// Returns what to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::EmptySplit { split } if split == "train" => {
                "give `binarize` documents, or keep a smaller share for `validation` and `test`"
                    .to_owned()
            }
            Self::EmptySplit { split } => {
                format!("set a larger `{split}` in the `binarize` stage, or give it more documents")
            }
            Self::Pairs => "`finetune` learns from them with `objective: dpo`".to_owned(),
            Self::NoPairs => "`normalize` makes them with `format: preferences`, of rows with `chosen` and `rejected`".to_owned(),
            _ => "the shards are damaged or not tinylm's: make them again with `binarize`, \
                  and see `tinylm cache verify`"
                .to_owned(),
        }
    }
}
