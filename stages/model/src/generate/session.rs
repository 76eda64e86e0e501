//! One conversation with a model: the keys and values of the tokens fed so far.
//!
//! Feeding costs the new tokens only; `truncate` takes back the last ones, so a prompt is
//! read once for many samples and a chat's beginning once for all its turns.

use std::sync::Arc;

use super::{
    forward::PASS_ROWS,
    model::Model,
    reader::{Fed, FeedError, Reader, Sequence, check, check_ids},
};
use crate::{config::ModelConfig, engine::Score};

/// Tokens fed to a model so far, and what comes next. Sessions of one model do not see each other.
pub struct Session {
    reader: Reader,
    sequence: Sequence,
}

impl Session {
    /// Begins with nothing held; `n_threads` work on each token.
    pub fn new(model: Arc<Model>, n_threads: usize) -> Session {
        Session::of(Reader::new(model, n_threads))
    }

    pub(crate) fn of(reader: Reader) -> Session {
        Session {
            sequence: Sequence::new(reader.model()),
            reader,
        }
    }

    pub fn model(&self) -> &Arc<Model> {
        self.reader.model()
    }

    pub fn config(&self) -> &ModelConfig {
        self.reader.model().config()
    }

    /// The tokens fed so far.
    pub fn held(&self) -> &[u16] {
        self.sequence.held()
    }

    /// Takes back all but the first `n` tokens.
    pub fn truncate(&mut self, n: usize) {
        self.sequence.truncate(n);
    }

    /// Feeds tokens after those held and returns the logits of what comes next.
    pub fn feed(&mut self, tokens: &[u16]) -> Result<&[f32], FeedError> {
        self.check(tokens, self.held().len())?;
        let (rest, last) = tokens.split_at((tokens.len() - 1) / PASS_ROWS * PASS_ROWS);
        for chunk in rest.chunks(PASS_ROWS) {
            self.pass(chunk, false)?;
        }
        self.pass(last, true)?;
        Ok(self.reader.logits(0))
    }

    /// Makes the held tokens exactly these, keeping what they begin with in common, and
    /// returns the logits of what comes next.
    pub fn hold(&mut self, tokens: &[u16]) -> Result<&[f32], FeedError> {
        self.check(tokens, 0)?;
        let n_common = self.n_common(tokens);
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
        self.truncate(0);
        self.score_behind(tokens, first, targets)
    }

    /// As [`score`](Self::score), and reads none of the places before `first` again that are held
    /// already: several ends of one beginning take little more than one of them.
    pub fn score_behind(
        &mut self,
        tokens: &[u16],
        first: usize,
        targets: &[u16],
    ) -> Result<Vec<Score>, FeedError> {
        self.check(tokens, 0)?;
        check_ids(self.config(), targets)?;
        assert_eq!(
            first + targets.len(),
            tokens.len(),
            "a target for each place from `first` on"
        );
        let n_kept = self.n_common(tokens).min(first);
        self.truncate(n_kept);
        let mut scores = Vec::with_capacity(targets.len());
        for chunk in tokens[n_kept..].chunks(PASS_ROWS) {
            let start = self.held().len();
            self.pass(chunk, false)?;
            let mut row = first.saturating_sub(start).min(chunk.len());
            while row < chunk.len() {
                let end = chunk.len().min(row + self.reader.score_rows());
                let targets = &targets[start + row - first..start + end - first];
                scores.extend(self.reader.score(row..end, targets)?);
                row = end;
            }
        }
        Ok(scores)
    }

    /// How many of the first tokens are held.
    fn n_common(&self, tokens: &[u16]) -> usize {
        let pairs = self.held().iter().zip(tokens);
        pairs.take_while(|(a, b)| a == b).count()
    }

    fn pass(&mut self, tokens: &[u16], is_asked: bool) -> Result<(), FeedError> {
        let fed = Fed {
            sequence: &mut self.sequence,
            tokens,
            n_asked: usize::from(is_asked),
        };
        self.reader.pass(&mut [fed]).map(drop)
    }

    fn check(&self, tokens: &[u16], n_held: usize) -> Result<(), FeedError> {
        check(self.config(), tokens, n_held)
    }

    /// What the session reads with, for sequences beside its own.
    pub fn reader(&mut self) -> &mut Reader {
        &mut self.reader
    }
}
