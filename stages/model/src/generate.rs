//! Generation: a model folder in, logits out, without a tape.
//!
//! A `Generator` holds the weights, packed for reading fast, and the keys and values of
//! the tokens fed so far. Feeding costs the new tokens only; `truncate` takes back the
//! last ones, so a prompt is read once for many samples and a chat's beginning once for
//! all its turns.
//!
//! This is not the training engine with gradients switched off: that one works on many
//! rows, keeps what the way back needs and has no memory of the tokens before. The two
//! compute the same function, and tests hold their logits within 1e-4 of each other.

mod cache;
mod continuation;
mod forward;
mod kernels;
mod team;
mod weights;

use std::path::Path;

use cache::Cache;
pub use continuation::{Continuation, GenerateError, Rules, Step};
use forward::{Machine, PASS_ROWS, Scratch, Sizes};
use kernels::Kernels;
use team::Team;
use weights::Weights;
pub use weights::{OpenError, read_config};

use crate::{
    config::{ModelConfig, Precision},
    engine::{Score, Tensors},
};

/// Rows whose logits are held at once while scoring.
const SCORE_ROWS: usize = 48;

/// A model that continues text.
pub struct Generator {
    weights: Weights,
    kernels: Kernels,
    sizes: Sizes,
    team: Team,
    scratch: Scratch,
    cache: Cache,
    held: Vec<u16>,
}

/// Why tokens could not be fed. Nothing was fed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    #[error("nothing to read: the prompt has no tokens")]
    Empty,
    #[error(
        "token {id} is outside the model's vocabulary of {vocab_size}: the tokenizer is not this model's"
    )]
    OutsideVocabulary { id: u16, vocab_size: usize },
    #[error("{n} tokens do not fit the model's context of {context}")]
    TooLong { n: usize, context: usize },
}

impl Generator {
    /// Opens a model folder (`config.json`, `model.safetensors`).
    pub fn open(
        folder: &Path,
        precision: Precision,
        n_threads: usize,
    ) -> Result<Generator, OpenError> {
        Ok(Generator::new(Weights::read(folder, precision)?, n_threads))
    }

    /// Takes weights that are in memory, as a training engine returns them.
    pub fn from_tensors(
        config: ModelConfig,
        tensors: &Tensors,
        precision: Precision,
        n_threads: usize,
    ) -> Result<Generator, OpenError> {
        let weights = Weights::from_tensors(config, tensors, precision)?;
        Ok(Generator::new(weights, n_threads))
    }

    fn new(weights: Weights, n_threads: usize) -> Generator {
        let cache = Cache::new(&weights.config);
        Generator {
            sizes: Sizes::new(&weights, cache.layout),
            weights,
            kernels: Kernels::best(),
            team: Team::new(n_threads),
            scratch: Scratch::default(),
            cache,
            held: Vec::new(),
        }
    }

    pub fn config(&self) -> &ModelConfig {
        &self.weights.config
    }

    /// The kernel set in use: `avx512bf16`, `avx512`, `avx2` or `plain`.
    pub fn kernels(&self) -> &'static str {
        self.kernels.name
    }

    /// Bytes of weights that decoding one token reads.
    pub fn bytes_per_token(&self) -> usize {
        self.weights.bytes_per_token()
    }

    /// The tokens fed so far.
    pub fn held(&self) -> &[u16] {
        &self.held
    }

    /// Takes back all but the first `n` tokens.
    pub fn truncate(&mut self, n: usize) {
        self.held.truncate(n);
    }

    /// Feeds tokens after those held and returns the logits of what comes next.
    pub fn feed(&mut self, tokens: &[u16]) -> Result<&[f32], FeedError> {
        self.check(tokens, self.held.len())?;
        let (rest, last) = tokens.split_at((tokens.len() - 1) / PASS_ROWS * PASS_ROWS);
        for chunk in rest.chunks(PASS_ROWS) {
            self.pass(chunk, false);
        }
        self.pass(last, true);
        Ok(&self.scratch.logits[..self.weights.config.vocab_size])
    }

    /// Makes the held tokens exactly these, keeping what they begin with in common, and
    /// returns the logits of what comes next.
    pub fn hold(&mut self, tokens: &[u16]) -> Result<&[f32], FeedError> {
        self.check(tokens, 0)?;
        let n_common = self
            .held
            .iter()
            .zip(tokens)
            .take_while(|(a, b)| a == b)
            .count();
        // The last token is always fed: its logits are what is asked for.
        let n_kept = n_common.min(tokens.len() - 1);
        self.truncate(n_kept);
        self.feed(&tokens[n_kept..])
    }

    /// Scores how well each target is predicted by the tokens up to its place, from
    /// `first` on: `targets[i]` stands for place `first + i`. Forgets what was held.
    pub fn score(
        &mut self,
        tokens: &[u16],
        first: usize,
        targets: &[u16],
    ) -> Result<Vec<Score>, FeedError> {
        self.check(tokens, 0)?;
        self.check_ids(targets)?;
        assert_eq!(
            first + targets.len(),
            tokens.len(),
            "a target for each place from `first` on"
        );
        self.truncate(0);
        let mut scores = Vec::with_capacity(targets.len());
        for chunk in tokens.chunks(PASS_ROWS) {
            let start = self.held.len();
            self.pass(chunk, false);
            let mut row = first.saturating_sub(start).min(chunk.len());
            while row < chunk.len() {
                let end = chunk.len().min(row + SCORE_ROWS);
                let targets = &targets[start + row - first..start + end - first];
                let mut machine = Machine {
                    weights: &self.weights,
                    kernels: self.kernels,
                    sizes: &self.sizes,
                    team: &mut self.team,
                    scratch: &mut self.scratch,
                };
                scores.extend_from_slice(machine.score(&mut self.cache, row..end, targets));
                row = end;
            }
        }
        Ok(scores)
    }

    fn pass(&mut self, tokens: &[u16], last: bool) {
        let n = tokens.len();
        let start = self.held.len();
        let heads = if last { n - 1..n } else { n..n };
        let mut machine = Machine {
            weights: &self.weights,
            kernels: self.kernels,
            sizes: &self.sizes,
            team: &mut self.team,
            scratch: &mut self.scratch,
        };
        machine.pass(&mut self.cache, tokens, start, heads);
        self.held.extend_from_slice(tokens);
    }

    fn check(&self, tokens: &[u16], n_held: usize) -> Result<(), FeedError> {
        if tokens.is_empty() {
            return Err(FeedError::Empty);
        }
        self.check_ids(tokens)?;
        let (n, context) = (n_held + tokens.len(), self.weights.config.context);
        if n > context {
            return Err(FeedError::TooLong { n, context });
        }
        Ok(())
    }

    fn check_ids(&self, tokens: &[u16]) -> Result<(), FeedError> {
        let vocab_size = self.weights.config.vocab_size;
        match tokens.iter().find(|&&id| usize::from(id) >= vocab_size) {
            Some(&id) => Err(FeedError::OutsideVocabulary { id, vocab_size }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "generate/tests.rs"]
mod tests;
