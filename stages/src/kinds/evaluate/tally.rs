//! Everything that is counted while documents are read.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tinylm_model::{
    engine::Score,
    shards::{ROLE_MASK, Split},
};
use tinylm_pipeline::{StageError, StageIo};

use super::{
    losses::{DocumentLoss, digest},
    size::{Size, Tags, size},
    text::{Scored, Text},
    windows::rolling_scores,
};
use crate::shared::{
    speak::{SpeakError, Speaker},
    tokens::Tokenizer,
};

/// Sums over some tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sums {
    pub(super) n: u64,
    pub(super) nll: f64,
    n_first: u64,
    n_first_five: u64,
}

impl Sums {
    fn add(&mut self, score: Score) {
        self.n += 1;
        self.nll += f64::from(score.nll);
        self.n_first += u64::from(score.rank == 0);
        self.n_first_five += u64::from(score.rank < 5);
    }

    pub(super) fn loss(&self) -> f64 {
        self.nll / self.n as f64
    }

    pub(super) fn json(&self) -> Value {
        if self.n == 0 {
            return json!({ "tokens": 0 });
        }
        json!({
            "tokens": self.n,
            "loss": self.loss(),
            "perplexity": self.loss().exp(),
            "accuracy_top1": self.n_first as f64 / self.n as f64,
            "accuracy_top5": self.n_first_five as f64 / self.n as f64,
        })
    }
}

/// Everything that is counted while documents are read.
pub(super) struct Tally {
    pub(super) scored: Scored,
    pub(super) all: Sums,
    pub(super) by_source: BTreeMap<String, Sums>,
    pub(super) by_role: BTreeMap<u8, Sums>,
    /// Of each document, in their order.
    pub(super) losses: Vec<DocumentLoss>,
    pub(super) n_documents: u64,
    /// Tokens of those documents, also those that are not scored.
    pub(super) n_read: u64,
    pub(super) size: Size,
    /// How often each id was scored.
    pub(super) counts: Vec<u64>,
    tags: Tags,
}

impl Tally {
    pub(super) fn new(tokenizer: &Tokenizer, scored: Scored) -> Result<Tally, StageError> {
        Ok(Tally {
            scored,
            all: Sums::default(),
            by_source: BTreeMap::new(),
            by_role: BTreeMap::new(),
            losses: Vec::new(),
            n_documents: 0,
            n_read: 0,
            size: Size::default(),
            counts: vec![0; tokenizer.vocab_size()],
            tags: Tags::of(tokenizer).map_err(SpeakError::from)?,
        })
    }

    fn add(&mut self, text: &Text, place: usize, score: Score) {
        let role = text.roles[place] & ROLE_MASK;
        let source = self.by_source.entry(text.source.clone()).or_default();
        for sums in [&mut self.all, source, self.by_role.entry(role).or_default()] {
            sums.add(score);
        }
        self.counts[usize::from(text.ids[place])] += 1;
    }
}

/// Scores a text and counts everything about it.
pub(super) fn score(
    speaker: &mut Speaker,
    text: &Text,
    n_all: Option<u64>,
    tally: &mut Tally,
    io: &StageIo,
) -> Result<(), StageError> {
    let before = tally.n_read;
    let progress = |done: usize| io.progress(before + done as u64, n_all, "tokens");
    let scores = rolling_scores(speaker.session(), &text.ids, &progress)?;
    let mut own = Sums::default();
    for (idx, score) in scores.into_iter().enumerate() {
        if text.is_scored(idx + 1, tally.scored) {
            tally.add(text, idx + 1, score);
            own.add(score);
        }
    }
    let size = size(speaker.tokenizer(), text, &tally.tags, tally.scored)?;
    tally.size.n_bytes += size.n_bytes;
    tally.size.n_words += size.n_words;
    tally.losses.push(DocumentLoss {
        digest: digest(speaker.tokenizer(), text, &tally.tags)?,
        tokens: own.n,
        bytes: size.n_bytes,
        nats: own.nll,
    });
    tally.n_documents += 1;
    tally.n_read += text.ids.len() as u64;
    Ok(())
}

/// Perplexity of the scored tokens when each is as likely as it was frequent among those
/// of the training split (one added to each), or, without one, among themselves.
pub(super) fn unigram_perplexity(train: Option<&Split>, tally: &Tally) -> f64 {
    let mut counts = tally.counts.clone();
    if let Some(train) = train {
        counts.fill(1);
        for document in train.documents() {
            let stretch = train.tokens(document);
            for (idx, id) in stretch.ids().enumerate() {
                let is_scored = tally.scored == Scored::All || stretch.is_target(idx);
                counts[usize::from(id)] += u64::from(is_scored);
            }
        }
    }
    let total = counts.iter().sum::<u64>() as f64;
    let pairs = tally.counts.iter().zip(&counts).filter(|(n, _)| **n > 0);
    let nll: f64 = pairs
        .map(|(&n, &count)| n as f64 * (total / count as f64).ln())
        .sum();
    (nll / tally.all.n as f64).exp()
}
