//! A corpus of documents on its way to shards: encoded block by block, written in order, judged at the end.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde_json::json;
use tinylm_model::shards::{INDEX_NAME, ShardsIndex, SplitIndex, VERSION};
use tinylm_pipeline::{Metrics, StageError, StageIo};

use super::{
    settings::BinarizeSettings,
    split::{Held, Splits, TEST, VALIDATION},
    stats::Stats,
    write::Writers,
};
use crate::shared::{
    documents::{Documents, RowGroup, Rows},
    encode::{Block, Part, Targets, encode},
    json::write_json,
    tokens::Tokenizer,
};

/// Of the whole as of its parts.
pub(super) const REVISION: u32 = 3;

/// The result of a run over all documents.
pub(super) struct Done {
    pub(super) writers: Writers,
    pub(super) stats: Stats,
}

/// The roles whose documents are of a split, or are split, by its number.
pub(super) const SPLIT_ROLES: [&str; 3] = ["documents", "validation", "test"];

/// Refuses a split that is both held back and given.
pub(super) fn check_role(
    role: &str,
    split: usize,
    is_given: bool,
    settings: &BinarizeSettings,
) -> Result<(), StageError> {
    let held = match split {
        VALIDATION => settings.validation,
        TEST => settings.test,
        _ => None,
    };
    // `0` also holds nothing back, and takes away what an extended file asks for.
    if !is_given || held.is_none_or(|held| held.amount() == 0.0) {
        return Ok(());
    }
    let message = format!("`{role}` is both a setting and an input");
    Err(StageError::new(message)
        .help("an official split is taken whole: leave the setting out, or set it to 0")
        .is_final())
}

pub(super) fn run_corpus(
    documents: &Documents,
    mut splits: Splits,
    settings: &BinarizeSettings,
    tokenizer: &Tokenizer,
    done: &mut Done,
    total: u64,
    io: &StageIo,
) -> Result<(), StageError> {
    let at_once = io.threads().clamp(2, 8);
    let mut encoded: Vec<Part> = Vec::new();
    for groups in documents.batches(at_once) {
        // One group is written while the next ones are being encoded.
        let before = std::mem::take(&mut encoded);
        let (written, parts) = rayon::join(
            || done.take(before),
            || encode_groups(groups, &mut splits, settings, tokenizer, io),
        );
        written?;
        encoded = parts?;
        io.progress(done.stats.documents_read(), Some(total), "documents")?;
    }
    done.take(encoded)
}

fn encode_groups(
    groups: &[RowGroup],
    splits: &mut Splits,
    settings: &BinarizeSettings,
    tokenizer: &Tokenizer,
    io: &StageIo,
) -> Result<Vec<Part>, StageError> {
    let rows: Vec<Rows> = groups
        .par_iter()
        .map(RowGroup::read)
        .collect::<Result<_, _>>()?;
    let mut blocks: Vec<Block> = Vec::new();
    for rows in &rows {
        splits.cut_into_blocks(rows, &mut blocks);
    }
    let parts = blocks.par_iter();
    parts
        .map(|block| encode(block, tokenizer, settings.targets, io))
        .collect()
}

impl Done {
    pub(super) fn new(settings: &BinarizeSettings, io: &StageIo) -> Self {
        Self {
            writers: Writers::new(io.out(), settings.shard_tokens),
            stats: Stats::default(),
        }
    }

    fn take(&mut self, parts: Vec<Part>) -> Result<(), StageError> {
        for part in parts {
            self.stats.add(&part);
            self.writers.add(part)?;
        }
        Ok(())
    }

    pub(super) fn finish(
        self,
        settings: &BinarizeSettings,
        tokenizer: &Tokenizer,
        io: &StageIo,
    ) -> Result<Metrics, StageError> {
        let Self { writers, stats } = self;
        let has_validation = !io.inputs("validation").is_empty();
        let written = writers.finish()?;
        let (index, told) = finished(written, &stats, settings, tokenizer, has_validation)?;
        for told in told {
            match told {
                Told::Note(note) => io.note(note),
                Told::Warning(warning) => io.warn(warning),
            }
        }
        write_json(&io.out().join(INDEX_NAME), &json!(index))?;
        Ok(stats.metrics(&index))
    }
}

/// What whoever made shards should see.
pub(super) enum Told {
    Note(&'static str),
    Warning(String),
}

/// Judges what was written of a whole corpus, and returns its `shards.json`.
pub(super) fn finished(
    (sources, splits): (Vec<String>, BTreeMap<String, SplitIndex>),
    stats: &Stats,
    settings: &BinarizeSettings,
    tokenizer: &Tokenizer,
    has_validation: bool,
) -> Result<(ShardsIndex, Vec<Told>), StageError> {
    stats.check(settings.rejected_max)?;
    let mut told: Vec<Told> = stats.warnings().into_iter().map(Told::Warning).collect();
    if stats.is_of_raw_text() {
        told.push(Told::Note(
            "all of it is raw text: a model of this alone goes on with a text and cannot answer in \
             `chat`, until it is finetuned on dialogues",
        ));
    }
    let train = splits.get("train").cloned().unwrap_or_default();
    if train.targets == 0 {
        return Err(nothing_to_learn(settings.targets, train.documents));
    }
    let n_documents: u64 = splits.values().map(|split| split.documents).sum();
    let pairs = stats.n_pairs > 0;
    if pairs && n_documents != 2 * stats.n_pairs {
        let message = "some documents are pairs of answers, and others are not";
        let help = "make shards of each sort in a stage of its own";
        return Err(StageError::new(message).help(help).is_final());
    }
    let n_held = splits.get("validation").map_or(0, |split| split.documents);
    let held = settings.validation.filter(|held| held.amount() > 0.0);
    let lack = (n_held == 0).then(|| lack(held, has_validation, n_documents));
    told.extend(lack.flatten().map(Told::Warning));
    let index = ShardsIndex {
        version: VERSION,
        vocab_size: tokenizer.vocab_size(),
        sources,
        template: Some(tokenizer.template_name().to_owned()),
        splits,
        pairs,
        stats: stats.to_json(),
    };
    Ok((index, told))
}

/// Says why there is nothing to validate on, where somebody wanted to.
fn lack(held: Option<Held>, has_validation: bool, n_documents: u64) -> Option<String> {
    match held {
        Some(Held::Share(share) | Held::Documents(share)) => Some(format!(
            "no document fell to `validation`: there are {n_documents}, each held back whole \
             or not at all; `validation: {{ tail: {share} }}` holds back the end of the text"
        )),
        Some(Held::Tail(_)) => Some("no text fell to `validation`: set a larger `tail`".to_owned()),
        None => has_validation
            .then(|| "the input `validation` has no document that could be taken".to_owned()),
    }
}

fn nothing_to_learn(targets: Targets, n_documents: u64) -> StageError {
    let error = StageError::new("no token of the training split is to be learnt").is_final();
    if n_documents == 0 {
        return error.help("there are no training documents: see what the stages before rejected");
    }
    match targets {
        Targets::Assistant => error.help("the dialogues have no assistant: set `targets: all`"),
        Targets::All => error,
    }
}
