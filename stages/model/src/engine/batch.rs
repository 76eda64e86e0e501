//! One micro-batch, as the loop hands it to an engine.

use super::error::EngineError;
use crate::config::{ModelConfig, Positions};

/// One micro-batch: `n_rows` sequences of `len` tokens, row after row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    pub n_rows: usize,
    pub len: usize,
    /// Input ids, `n_rows * len`.
    pub tokens: Vec<u16>,
    /// The id to predict at each place, `n_rows * len`.
    pub targets: Vec<u16>,
    /// How much each place counts in the loss: 1.0 or 0.0 (0.0 for padding and masked tokens).
    pub weights: Vec<f32>,
    /// Position of each token inside its own document (packing resets it).
    pub positions: Vec<u16>,
    /// For each token, the index *within its row* where its document starts:
    /// attention at `t` sees `starts[t]..=t` only.
    pub starts: Vec<u16>,
    /// Index of the first row in the step's global batch: random numbers depend on
    /// it, so the same row draws the same dropout however the batch is divided.
    pub row_offset: usize,
}

impl Batch {
    /// Refuses a batch that would read outside a table or a row; kernels rely on it.
    pub(crate) fn check(&self, config: &ModelConfig) -> Result<(), EngineError> {
        let refuse = |what: String| Err(EngineError::Batch(what));
        let n = self.n_rows * self.len;
        if n == 0 {
            return refuse("it has no tokens".into());
        }
        let lengths = [
            ("tokens", self.tokens.len()),
            ("targets", self.targets.len()),
            ("weights", self.weights.len()),
            ("positions", self.positions.len()),
            ("starts", self.starts.len()),
        ];
        if let Some((name, found)) = lengths.into_iter().find(|(_, found)| *found != n) {
            return refuse(format!("it has {found} {name} for {n} places"));
        }
        let ids = self.tokens.iter().chain(&self.targets);
        if let Some(id) = ids
            .max()
            .filter(|&&id| usize::from(id) >= config.vocab_size)
        {
            let size = config.vocab_size;
            return refuse(format!("token id {id} is outside the vocabulary of {size}"));
        }
        let position = self.positions.iter().max().map_or(0, |&p| usize::from(p));
        if config.positions == Positions::Learned && position >= config.context {
            let context = config.context;
            return refuse(format!(
                "position {position} is outside the model's `context` of {context}"
            ));
        }
        let in_row = self.starts.iter().enumerate();
        if let Some((i, start)) = in_row
            .map(|(i, &s)| (i % self.len, usize::from(s)))
            .find(|(t, s)| s > t)
        {
            return refuse(format!(
                "the document of token {i} starts after it, at {start}"
            ));
        }
        Ok(())
    }
}
