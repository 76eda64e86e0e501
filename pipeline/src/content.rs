//! The sorts of artifact: what a kind makes, and what a role takes.
//!
//! A plan compares the two, so that documents where shards belong are refused in the file and not
//! by the stage that cannot read them hours later.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// Files as they came from outside.
    Files,
    Documents,
    Tokenizer,
    Shards,
    Model,
    /// The numbers of an evaluation.
    Figures,
    /// Texts that a model wrote.
    Samples,
    /// A model in the form of other programs.
    Export,
    /// Whatever the author's own program writes: nobody but the author knows.
    Anything,
}

impl Content {
    /// Whether an artifact of this sort may fill a role that takes those; a role that names none
    /// takes any.
    pub fn fits(self, taken: &[Self]) -> bool {
        self == Self::Anything || taken.is_empty() || taken.contains(&self)
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Files => "files",
            Self::Documents => "documents",
            Self::Tokenizer => "a tokenizer",
            Self::Shards => "shards",
            Self::Model => "a model",
            Self::Figures => "figures",
            Self::Samples => "samples",
            Self::Export => "an export",
            Self::Anything => "anything",
        })
    }
}
