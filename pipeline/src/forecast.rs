//! The size and the cost of what a stage would make, told before it is made.
//!
//! A forecast goes from stage to stage as artifacts do: the size of a text becomes a number of tokens,
//! and that the steps of a training. What is made already is counted, all else is estimated.

use std::path::PathBuf;

use serde_json::Value;

/// Everything that can be said of a stage beforehand.
#[derive(Debug, Clone, PartialEq)]
pub enum Forecast {
    /// Nothing yet; the words say what it waits for.
    Later(&'static str),
    /// Texts, about so many bytes.
    Texts { bytes: u64 },
    /// Tokens of a vocabulary, and about how many there will be, where that can be told.
    Tokens {
        vocab_size: usize,
        n_about: Option<u64>,
    },
    /// A model to be trained.
    Model {
        parts: Vec<Part>,
        /// Its settings, for those that read it.
        shape: Value,
        flops_per_token: u64,
        memory: MemoryNeed,
        course: Option<Course>,
    },
}

/// How long a training goes on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Course {
    pub n_steps: u64,
    /// Unknown where nothing says how much text there is.
    pub n_epochs: Option<f64>,
    /// Tokens that are trained on, and those that all validations read.
    pub n_tokens: u64,
    pub n_validated: u64,
    /// Whether it is counted, and not estimated from the size of a text.
    pub is_counted: bool,
}

/// What is known of the stages that fill a role.
#[derive(Debug, Clone, Default)]
pub struct Ahead {
    /// The files of the first, if it is fresh.
    pub made: Option<PathBuf>,
    /// One a stage, as far as there are any.
    pub forecasts: Vec<Forecast>,
}

impl Ahead {
    /// The bytes of texts, if all of the stages are known to hold some.
    pub fn text_bytes(&self) -> Option<u64> {
        let bytes = self.forecasts.iter().map(|forecast| match forecast {
            Forecast::Texts { bytes } => Some(*bytes),
            _ => None,
        });
        let bytes: Option<Vec<u64>> = bytes.collect();
        bytes
            .filter(|all| !all.is_empty())
            .map(|all| all.iter().sum())
    }
}

/// A tensor, or several that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub shape: Vec<usize>,
    pub n_times: usize,
}

/// The memory that a training would take of this machine now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryNeed {
    /// Rows computed at a time.
    pub n_rows: usize,
    pub len: usize,
    pub bytes: u64,
    /// Where the system tells.
    pub available_bytes: Option<u64>,
}

impl Part {
    /// Returns the numbers in all of its tensors.
    pub fn n(&self) -> usize {
        self.shape.iter().product::<usize>() * self.n_times
    }
}
