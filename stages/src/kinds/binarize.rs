//! Turns documents into shards: token ids that training maps into memory.
//!
//! Each document is rendered once, piece by piece, and ids, roles and targets come from
//! that same pass, so a mask cannot drift from what it masks. A token is a target when
//! an assistant is to learn to write it: what it said, and the token that ends its turn;
//! of raw text, every token.
//!
//! Documents are never cut between files and stand in the order of the corpus; blocks of
//! them are encoded on all threads, and nothing in the artifact depends on how many. A
//! split goes by a hash of `group`, so all that was cut from one dialogue stays on one
//! side and new data moves nothing. It knows no context length: that is training's.
//!
//! Of a pair of answers two documents are made, one behind the other: the prompt with the chosen
//! answer, and with the rejected one. Targets are the answers alone.

use std::path::Path;

use rayon::prelude::*;
use serde_json::json;
use tinylm_model::shards::{INDEX_NAME, ShardsIndex, VERSION};
use tinylm_pipeline::spec::keys::Key;
use tinylm_pipeline::{
    Content, FindInput, Forecast, Metrics, NoSettings, Role as InputRole, Roles, SettingError,
    Stage, StageError, StageIo, copy_file, settings,
};

use crate::shared::{
    documents::{Documents, RowGroup, Rows},
    encode::{Block, Part, encode},
    json::write_json,
    threads,
    tokens::{TOKENIZER_NAMES, Tokenizer},
};

mod split;
mod stats;
mod write;

pub use crate::shared::encode::Targets;
pub use split::Held;

use split::{Splits, TRAIN};
use stats::Stats;
use write::Writers;

pub struct Binarize;

settings! {
    /// Turns documents into token ids that training reads.
    pub struct BinarizeSettings {
        /// Held back for validation: a share of all groups (`0.02`), or `{ tail: 0.1 }`, the end of the text.
        /// With `{ documents: 0.02 }` parts of one dialogue fall on both sides: a leak, for comparisons with figures taken so.
        pub validation: Option<Held> = None,
        /// Held back for a test, likewise.
        pub test: Option<Held> = None,
        /// Which tokens of a dialogue are to be learnt; of raw text, always all.
        pub targets: Targets = Targets::Assistant,
        /// A file is closed before it would hold more tokens than this.
        pub shard_tokens: u64 = 100_000_000,
        /// Fails when a larger share of the documents cannot be encoded.
        pub rejected_max: f64 = 0.01,
    }
}

/// Bytes of a text that a token stands for, about, with a vocabulary of a few thousand.
const BYTES_A_TOKEN: f64 = 3.5;

const ROLES: &[InputRole] = &[
    InputRole::many("documents", "what is encoded and split").takes(&[Content::Documents]),
    InputRole::one("tokenizer", "what it is encoded with; a model has one too")
        .takes(&[Content::Tokenizer, Content::Model]),
    InputRole::many("validation", "documents of an official validation split")
        .optional()
        .takes(&[Content::Documents]),
    InputRole::many("test", "documents of an official test split")
        .optional()
        .takes(&[Content::Documents]),
];

impl Stage for Binarize {
    type Settings = BinarizeSettings;
    type Watch = NoSettings;

    const KIND: &'static str = "binarize";
    const ABOUT: &'static str =
        "turns documents into shards of token ids, split for training and validation";
    const REVISION: u32 = 3;
    const MAKES: Content = Content::Shards;
    const METRICS: &'static [Key] = &[
        (
            "tokens_per_word",
            "Tokens for a word: how well the vocabulary fits.",
        ),
        (
            "unknown_rate",
            "The share of tokens that stand for what the vocabulary lacks.",
        ),
        ("*_tokens", "Tokens of a split."),
        ("*_documents", "Documents of a split."),
        ("rejected", "Documents that could not be encoded."),
    ];
    const ROLES: Roles = Roles::Fixed(ROLES);

    fn canonical(settings: BinarizeSettings) -> Result<BinarizeSettings, SettingError> {
        split::check(settings.validation, settings.test)?;
        if settings.shard_tokens == 0 {
            return Err(SettingError::new("shard_tokens", "must be at least 1"));
        }
        Ok(settings)
    }

    fn forecast(settings: &BinarizeSettings, input: &FindInput) -> Option<Forecast> {
        let tokenizer = input("tokenizer");
        let made = tokenizer.made.as_deref();
        let made = made.and_then(|folder| Tokenizer::load(folder).ok());
        let vocab_size = match (made, tokenizer.forecasts.first()) {
            (Some(made), _) => made.vocab_size(),
            (None, Some(Forecast::Tokens { vocab_size, .. })) => *vocab_size,
            _ => return None,
        };
        let held = [settings.validation, settings.test].into_iter().flatten();
        let trained_on: f64 = 1.0 - held.map(Held::amount).sum::<f64>();
        let bytes = input("documents").text_bytes();
        let n_about = bytes.map(|bytes| (bytes as f64 * trained_on / BYTES_A_TOKEN) as u64);
        Some(Forecast::Tokens {
            vocab_size,
            n_about,
        })
    }

    fn run(
        settings: &BinarizeSettings,
        _: &NoSettings,
        io: &StageIo,
    ) -> Result<Metrics, StageError> {
        let folder = &io.input("tokenizer")?.path;
        let tokenizer = Tokenizer::load(folder)
            .map_err(|error| StageError::new(error.to_string()).is_final())?;
        for name in TOKENIZER_NAMES {
            let (from, to) = (folder.join(name), io.out().join(name));
            copy_file(&from, &to)?;
        }
        let pool = threads::pool(io)?;
        let done = pool.install(|| binarize(settings, &tokenizer, io))?;
        done.finish(settings, &tokenizer, io)
    }
}

/// The result of a run over all documents.
struct Done {
    writers: Writers,
    stats: Stats,
}

fn binarize(
    settings: &BinarizeSettings,
    tokenizer: &Tokenizer,
    io: &StageIo,
) -> Result<Done, StageError> {
    let roles = [
        ("documents", None),
        ("validation", settings.validation),
        ("test", settings.test),
    ];
    let mut corpora = Vec::new();
    for (split, (role, setting)) in roles.into_iter().enumerate() {
        let inputs = io.inputs(role);
        // `0` also holds nothing back, and takes away what an extended file asks for.
        if !inputs.is_empty() && setting.is_some_and(|held| held.amount() > 0.0) {
            let message = format!("`{role}` is both a setting and an input");
            return Err(StageError::new(message)
                .help("an official split is taken whole: leave the setting out, or set it to 0")
                .is_final());
        }
        if !inputs.is_empty() {
            let folders: Vec<&Path> = inputs.iter().map(|input| input.path.as_path()).collect();
            corpora.push((split, Documents::open(&folders)?));
        }
    }
    let total = corpora
        .iter()
        .map(|(_, documents)| documents.n_documents())
        .sum();
    let mut done = Done {
        writers: Writers::new(io.out(), settings.shard_tokens),
        stats: Stats::default(),
    };
    for (split, documents) in &corpora {
        let splits = match *split {
            TRAIN => Splits::new(settings.validation, settings.test, documents, io)?,
            official => Splits::whole(official),
        };
        run_corpus(documents, splits, settings, tokenizer, &mut done, total, io)?;
    }
    Ok(done)
}

fn run_corpus(
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
    fn take(&mut self, parts: Vec<Part>) -> Result<(), StageError> {
        for part in parts {
            self.stats.add(&part);
            self.writers.add(part)?;
        }
        Ok(())
    }

    fn finish(
        self,
        settings: &BinarizeSettings,
        tokenizer: &Tokenizer,
        io: &StageIo,
    ) -> Result<Metrics, StageError> {
        let Self { writers, stats } = self;
        stats.check(settings.rejected_max)?;
        for warning in stats.warnings() {
            io.warn(warning);
        }
        if stats.is_of_raw_text() {
            io.note(
                "all of it is raw text: a model of this alone goes on with a text and cannot answer in \
                 `chat`, until it is finetuned on dialogues",
            );
        }
        let (sources, splits) = writers.finish()?;
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
        let held = splits.get("validation").map_or(0, |split| split.documents);
        match settings.validation.filter(|held| held.amount() > 0.0) {
            _ if held > 0 => {}
            Some(Held::Share(share) | Held::Documents(share)) => {
                io.warn(format!(
                    "no document fell to `validation`: there are {n_documents}, each held back whole \
                     or not at all; `validation: {{ tail: {share} }}` holds back the end of the text"
                ));
            }
            Some(Held::Tail(_)) => io.warn("no text fell to `validation`: set a larger `tail`"),
            None if io.inputs("validation").is_empty() => {}
            None => io.warn("the input `validation` has no document that could be taken"),
        }
        let index = ShardsIndex {
            version: VERSION,
            vocab_size: tokenizer.vocab_size(),
            sources,
            template: Some(tokenizer.template_name().to_owned()),
            splits,
            pairs,
            stats: stats.to_json(),
        };
        write_json(&io.out().join(INDEX_NAME), &json!(index))?;
        Ok(stats.metrics(&index))
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

#[cfg(test)]
mod tests;
