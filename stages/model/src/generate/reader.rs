//! A model that reads for several sequences at once.
//!
//! Decoding one token reads every weight once, and so does decoding one token of each of thirty
//! sequences: a server feeds them together. What a sequence is told does not depend on what is fed
//! beside it.

use std::{ops::Range, sync::Arc};

use super::{
    cache::Cache,
    forward::{Machine, PASS_ROWS},
    model::Model,
    pass::Part,
    scratch::Scratch,
    team::Team,
};
use crate::{config::ModelConfig, engine::Score};

/// Tokens fed to a model so far: what is kept of one conversation.
pub struct Sequence {
    cache: Cache,
    held: Vec<u16>,
}

impl Sequence {
    pub fn new(model: &Model) -> Sequence {
        Sequence {
            cache: Cache::new(model.config()),
            held: Vec::new(),
        }
    }

    pub fn held(&self) -> &[u16] {
        &self.held
    }

    /// Takes back all but the first `n` tokens.
    pub fn truncate(&mut self, n: usize) {
        self.held.truncate(n);
    }
}

/// Tokens of a sequence, and what is asked for.
pub struct Fed<'a> {
    pub sequence: &'a mut Sequence,
    pub tokens: &'a [u16],
    /// Behind how many of the last tokens the logits are wanted: mostly one, or none.
    pub n_asked: usize,
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

/// The threads and buffers that a model reads with.
pub struct Reader {
    model: Arc<Model>,
    team: Team,
    scratch: Scratch,
}

impl Reader {
    /// Most tokens that one call of [`feed`](Reader::feed) takes.
    pub const MOST: usize = PASS_ROWS;

    pub fn new(model: Arc<Model>, n_threads: usize) -> Reader {
        Reader {
            model,
            team: Team::new(n_threads),
            scratch: Scratch::default(),
        }
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Feeds tokens to each sequence in one pass and returns the logits that are
    /// asked for, in their order. Nothing is fed where one of them cannot be.
    pub fn feed(&mut self, fed: &mut [Fed<'_>]) -> Result<Vec<&[f32]>, FeedError> {
        for one in fed.iter() {
            check(self.model.config(), one.tokens, one.sequence.held.len())?;
        }
        let n: usize = fed.iter().map(|one| one.tokens.len()).sum();
        assert!(n <= Self::MOST, "{n} tokens in one pass");
        let n_asked = self.pass(fed);
        Ok((0..n_asked).map(|row| self.logits(row)).collect())
    }

    /// Feeds what has been checked and returns how many asked.
    pub(super) fn pass(&mut self, fed: &mut [Fed<'_>]) -> usize {
        let (mut heads, mut end) = (Vec::new(), 0);
        for one in fed.iter() {
            end += one.tokens.len();
            heads.extend(end - one.n_asked..end);
        }
        let n_asked = heads.len();
        let mut parts: Vec<Part<'_>> = fed
            .iter_mut()
            .map(|one| Part {
                start: one.sequence.held.len(),
                cache: &mut one.sequence.cache,
                tokens: one.tokens,
            })
            .collect();
        self.machine().pass(&mut parts, heads);
        for one in fed {
            one.sequence.held.extend_from_slice(one.tokens);
        }
        n_asked
    }

    /// The logits of one that asked, in the last pass.
    pub(super) fn logits(&self, row: usize) -> &[f32] {
        let (stride, n) = (self.model.sizes.vocab, self.model.config().vocab_size);
        &self.scratch.logits[row * stride..][..n]
    }

    /// Scores the targets of some rows of the last pass.
    pub(super) fn score(&mut self, rows: Range<usize>, targets: &[u16]) -> &[Score] {
        let n = targets.len();
        self.machine().score(rows, targets);
        &self.scratch.scores[..n]
    }

    fn machine(&mut self) -> Machine<'_> {
        Machine {
            model: &self.model,
            team: &mut self.team,
            scratch: &mut self.scratch,
        }
    }
}

/// Refuses tokens that cannot be fed after so many others.
pub(super) fn check(config: &ModelConfig, tokens: &[u16], n_held: usize) -> Result<(), FeedError> {
    if tokens.is_empty() {
        return Err(FeedError::Empty);
    }
    check_ids(config, tokens)?;
    let (n, context) = (n_held + tokens.len(), config.context);
    if n > context {
        return Err(FeedError::TooLong { n, context });
    }
    Ok(())
}

pub(super) fn check_ids(config: &ModelConfig, tokens: &[u16]) -> Result<(), FeedError> {
    let vocab_size = config.vocab_size;
    match tokens.iter().find(|&&id| usize::from(id) >= vocab_size) {
        Some(&id) => Err(FeedError::OutsideVocabulary { id, vocab_size }),
        None => Ok(()),
    }
}
