//! A model that reads for several sequences at once.
//!
//! Decoding one token reads every weight once, and so does decoding one token of each of thirty
//! sequences: a server feeds them together. What a sequence is told does not depend on what is fed
//! beside it.

use std::{ops::Range, sync::Arc};

use super::{
    cache::Cache,
    forward::{Machine, PASS_ROWS},
    model::{Held, Model, Packed},
    pass::Part,
    scratch::Scratch,
    team::Team,
};
use crate::{
    config::ModelConfig,
    engine::{EngineError, Score},
    gpu::{GpuReader, OnDevice, Read},
    machine,
};

/// Tokens fed to a model so far: what is kept of one conversation.
pub struct Sequence {
    kept: Kept,
    held: Vec<u16>,
}

/// Where the keys and values are.
enum Kept {
    Here(Cache),
    OnGpu(OnDevice),
}

impl Sequence {
    pub fn new(model: &Model) -> Sequence {
        Sequence {
            kept: match &model.held {
                Held::Here(_) => Kept::Here(Cache::new(model.config())),
                Held::OnGpu(_) => Kept::OnGpu(OnDevice::default()),
            },
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
    #[error("{0}")]
    Device(String),
}

impl From<EngineError> for FeedError {
    fn from(error: EngineError) -> FeedError {
        match error {
            EngineError::Device(what) => FeedError::Device(what),
            other => FeedError::Device(other.to_string()),
        }
    }
}

/// What a model reads with.
pub struct Reader {
    model: Arc<Model>,
    by: By,
}

enum By {
    /// Threads, and the buffers that they share.
    Here(Team, Box<Scratch>),
    /// A GPU, which is opened by the thread that first reads: a driver's context is one thread's.
    OnGpu(Option<Box<GpuReader>>),
}

/// What sequences beside each other may take of the memory that is free, and how many are worth it: products of more rows gain no more.
const CACHES_BYTES: u64 = 1 << 30;
const CACHES_MOST: u64 = 32;

/// Rows whose logits are held at once while scoring, which a processor keeps near it.
const SCORE_ROWS: usize = 48;

impl Reader {
    /// Most tokens that one call of [`feed`](Reader::feed) takes.
    pub const MOST: usize = PASS_ROWS;

    pub fn new(model: Arc<Model>, n_threads: usize) -> Reader {
        let by = match &model.held {
            Held::Here(_) => By::Here(Team::new(n_threads), Box::default()),
            Held::OnGpu(_) => By::OnGpu(None),
        };
        Reader { model, by }
    }

    /// The same in the emulator, or on whatever else was made ready.
    #[cfg(test)]
    pub(crate) fn on(model: Arc<Model>, reader: GpuReader) -> Reader {
        let by = By::OnGpu(Some(Box::new(reader)));
        Reader { model, by }
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// How many sequences it has room for.
    pub fn n_sequences(&mut self) -> Result<usize, FeedError> {
        match (&self.model.held, &mut self.by) {
            (Held::OnGpu(stored), By::OnGpu(reader)) => {
                let reader = opened(reader, || GpuReader::open(stored))?;
                Ok(reader.n_sequences())
            }
            _ => {
                let n_bytes = Cache::n_bytes(self.model.config()).max(1);
                let room = machine::Machine::here()
                    .memory_bytes
                    .map_or(CACHES_BYTES, |free| free / 4);
                let n = room.min(CACHES_BYTES) / n_bytes as u64;
                Ok(n.clamp(1, CACHES_MOST) as usize)
            }
        }
    }

    /// Feeds tokens to each sequence in one pass and returns the logits that are
    /// asked for, in their order. Nothing is fed where one of them cannot be.
    pub fn feed(&mut self, fed: &mut [Fed<'_>]) -> Result<Vec<&[f32]>, FeedError> {
        for one in fed.iter() {
            check(self.model.config(), one.tokens, one.sequence.held.len())?;
        }
        let n: usize = fed.iter().map(|one| one.tokens.len()).sum();
        assert!(n <= Self::MOST, "{n} tokens in one pass");
        let n_asked = self.pass(fed)?;
        Ok((0..n_asked).map(|row| self.logits(row)).collect())
    }

    /// Feeds what has been checked and returns how many asked.
    pub(super) fn pass(&mut self, fed: &mut [Fed<'_>]) -> Result<usize, FeedError> {
        let (mut heads, mut end) = (Vec::new(), 0);
        for one in fed.iter() {
            end += one.tokens.len();
            heads.extend(end - one.n_asked..end);
        }
        let n_asked = heads.len();
        match (&self.model.held, &mut self.by) {
            (Held::Here(packed), By::Here(team, scratch)) => {
                let parts = fed.iter_mut().filter_map(part);
                machine(packed, team, scratch).pass(&mut parts.collect::<Vec<_>>(), heads);
            }
            (Held::OnGpu(stored), By::OnGpu(reader)) => {
                let reads: Vec<Read<'_>> = fed.iter().filter_map(read).collect();
                opened(reader, || GpuReader::open(stored))?.pass(&reads, &heads)?;
            }
            _ => unreachable!("a reader is made for its model"),
        }
        for one in fed {
            one.sequence.held.extend_from_slice(one.tokens);
        }
        Ok(n_asked)
    }

    /// The logits of one that asked, in the last pass.
    pub(super) fn logits(&self, row: usize) -> &[f32] {
        let n = self.model.config().vocab_size;
        match (&self.model.held, &self.by) {
            (Held::Here(packed), By::Here(_, scratch)) => {
                &scratch.logits[row * packed.sizes.vocab..][..n]
            }
            (_, By::OnGpu(Some(reader))) => &reader.logits[row * n..][..n],
            _ => &[],
        }
    }

    /// How many targets are scored at once.
    pub(super) fn score_rows(&self) -> usize {
        match self.by {
            By::Here(..) => SCORE_ROWS,
            By::OnGpu(_) => PASS_ROWS,
        }
    }

    /// Scores the targets of some rows of the last pass.
    pub(super) fn score(
        &mut self,
        rows: Range<usize>,
        targets: &[u16],
    ) -> Result<Vec<Score>, FeedError> {
        match (&self.model.held, &mut self.by) {
            (Held::Here(packed), By::Here(team, scratch)) => {
                machine(packed, team, scratch).score(rows, targets);
                Ok(scratch.scores[..targets.len()].to_vec())
            }
            (_, By::OnGpu(Some(reader))) => Ok(reader.score(rows, targets)?),
            _ => Ok(Vec::new()),
        }
    }
}

fn machine<'a>(model: &'a Packed, team: &'a mut Team, scratch: &'a mut Scratch) -> Machine<'a> {
    Machine {
        model,
        team,
        scratch,
    }
}

fn part<'a>(fed: &'a mut Fed<'_>) -> Option<Part<'a>> {
    match &mut fed.sequence.kept {
        Kept::Here(cache) => Some(Part {
            start: fed.sequence.held.len(),
            cache,
            tokens: fed.tokens,
        }),
        Kept::OnGpu(_) => None,
    }
}

fn read<'a>(fed: &'a Fed<'_>) -> Option<Read<'a>> {
    match &fed.sequence.kept {
        Kept::Here(_) => None,
        Kept::OnGpu(sequence) => Some(Read {
            start: fed.sequence.held.len(),
            sequence,
            tokens: fed.tokens,
        }),
    }
}

/// What there is, or what `open` makes of it.
fn opened(
    reader: &mut Option<Box<GpuReader>>,
    open: impl FnOnce() -> Result<GpuReader, EngineError>,
) -> Result<&mut GpuReader, EngineError> {
    match reader {
        Some(reader) => Ok(reader),
        None => Ok(reader.insert(Box::new(open()?))),
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
