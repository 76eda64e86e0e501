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

use tinylm_pipeline::spec::keys::Key;
use tinylm_pipeline::{
    Content, FindInput, Forecast, Kind, Metrics, NoSettings, Role as InputRole, Roles,
    SettingError, Stage, StageError, StageIo, copy_file,
    parts::{Collection, Conductor},
};

use crate::shared::{
    documents::Documents,
    threads,
    tokens::{TOKENIZER_NAMES, Tokenizer},
};

mod corpus;
mod parts;
mod settings;
mod split;
mod stats;
mod write;

pub use crate::shared::encode::Targets;
pub use settings::BinarizeSettings;
pub use split::Held;

use corpus::{Done, REVISION, SPLIT_ROLES, check_role, run_corpus};
use split::{Splits, TRAIN};

pub struct Binarize;

/// The kinds of its parts.
pub(super) const PARTS: &[Kind] = parts::KINDS;

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
    const REVISION: u32 = REVISION;
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
        let mut held = [("validation", settings.validation), ("test", settings.test)].into_iter();
        let tail = held.find(|(_, held)| matches!(held, Some(Held::Tail(_))));
        if let Some((name, _)) = tail.filter(|_| settings.partition.is_some()) {
            let message = "where the text's end begins moves with every file that comes to it";
            return Err(SettingError::new(name, message)
                .help("hold back a share (`0.02`), or leave out `partition`"));
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

    fn is_in_parts(settings: &BinarizeSettings) -> bool {
        settings.partition.is_some()
    }

    fn conduct(
        settings: &BinarizeSettings,
        conductor: &dyn Conductor,
    ) -> Result<Collection, StageError> {
        parts::conduct(settings, conductor)
    }
}

fn binarize(
    settings: &BinarizeSettings,
    tokenizer: &Tokenizer,
    io: &StageIo,
) -> Result<Done, StageError> {
    let mut corpora = Vec::new();
    for (split, role) in SPLIT_ROLES.into_iter().enumerate() {
        let inputs = io.inputs(role);
        check_role(role, split, !inputs.is_empty(), settings)?;
        if !inputs.is_empty() {
            let folders: Vec<&Path> = inputs.iter().map(|input| input.path.as_path()).collect();
            corpora.push((split, Documents::open(&folders)?));
        }
    }
    let total = corpora
        .iter()
        .map(|(_, documents)| documents.n_documents())
        .sum();
    let mut done = Done::new(settings, io);
    for (split, documents) in &corpora {
        let splits = match *split {
            TRAIN => Splits::new(settings.validation, settings.test, documents, io)?,
            official => Splits::whole(official),
        };
        run_corpus(documents, splits, settings, tokenizer, &mut done, total, io)?;
    }
    Ok(done)
}

#[cfg(test)]
mod tests;
