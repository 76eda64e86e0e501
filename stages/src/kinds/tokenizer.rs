//! Trains a tokenizer on what people wrote, or takes an existing one and adds to it.
//!
//! Writes `tokenizer.json` as Hugging Face's released libraries read it, the chat
//! template, and what generation must know. Special tokens are one id each, always, and
//! stand behind everything learnt: a vocabulary has the same ids with and without them,
//! and a template's tokens have the ids that models trained elsewhere expect (T5 and
//! `start-end`: 32100 to 32104; GPT-2 and `chatml`: 50257, 50258).
//!
//! The same recipe gives the same bytes for any number of threads. What is learnt from
//! is a stated sample, chosen by a hash of each document's id; see `words`.

use std::path::Path;

use serde_json::{Map, Value, json};
use tinylm_pipeline::spec::keys::Key;
use tinylm_pipeline::{
    Content, FindInput, Forecast, Metrics, NoSettings, Outside, Pin, Remote, Role as InputRole,
    Roles, SettingError, Stage, StageError, StageIo, settings,
};

use crate::shared::{
    documents::Documents,
    json::write_json,
    template::Template,
    tokens::{
        ID_MAX,
        artifact::{add_specials, write},
        json::added_token,
    },
};
use crate::shared::{
    hub::{hub_remote, resolve_repo},
    net::Net,
};

mod bpe;
mod model;
mod pretrained;
pub(crate) mod words;

pub use bpe::Ties;
pub use model::Algorithm;
pub use pretrained::Pretrained;

use model::Plan;

pub struct TokenizerStage;

settings! {
    /// Trains a tokenizer, or takes an existing one.
    pub struct TokenizerSettings {
        /// Takes an existing tokenizer in place of training one; all that concerns training is then unused.
        pub pretrained: Option<Pretrained> = None,
        /// How words are cut into tokens.
        pub algorithm: Algorithm = Algorithm::ByteLevelBpe,
        /// Tokens to learn; those of the template come on top.
        #[range(0, ID_MAX)]
        pub vocab_size: usize = 8000,
        /// Rarer tokens are not learnt; 2 means the same as 1 to `unigram`, whose pieces occur twice in any case.
        pub min_frequency: u64 = 2,
        /// Which of two equally frequent pairs is merged first.
        pub ties: Ties = Ties::Older,
        /// Gives up upper case; unless set, `word-level` and `wordpiece` do.
        pub lowercase: Option<bool> = None,
        /// The share of all characters that must have a token of their own; rarer ones are written as bytes or are unknown.
        #[range(above 0.0, 1.0)]
        pub coverage: f64 = 0.9999,
        /// Learns from about this many megabytes of text, evenly spread; all of a smaller corpus.
        #[range(1, 2048)]
        pub sample_mb: u64 = 256,
        /// The chat template: how dialogues are written and told from raw text.
        pub template: Template = Template::Chatml,
        /// Further tokens that no text can produce, in the order of their ids.
        pub special_tokens: Vec<String> = Vec::new(),
    }
}

impl Stage for TokenizerStage {
    type Settings = TokenizerSettings;
    type Watch = NoSettings;

    const KIND: &'static str = "tokenizer";
    const ABOUT: &'static str =
        "trains a tokenizer, or takes an existing one and adds special tokens";
    const REVISION: u32 = 4;
    const MAKES: Content = Content::Tokenizer;
    const METRICS: &'static [Key] = &[("vocab_size", "Tokens, those of the template among them.")];
    const ROLES: Roles = Roles::Fixed(&[InputRole::many(
        "documents",
        "what it learns from; not read with `pretrained`",
    )
    .optional()
    .takes(&[Content::Documents])]);

    fn remotes(settings: &TokenizerSettings) -> Vec<Remote> {
        let repo = settings.pretrained.as_ref().and_then(Pretrained::repo);
        let places = ["pretrained.hub", "pretrained.revision"];
        repo.map(|repo| hub_remote(&repo, &places))
            .into_iter()
            .collect()
    }

    fn resolve(
        settings: &TokenizerSettings,
        _: &Remote,
        outside: &Outside,
    ) -> Result<Pin, StageError> {
        match settings.pretrained.as_ref().and_then(Pretrained::repo) {
            Some(repo) => resolve_repo(&repo, &Net::new(outside)?),
            None => Err(StageError::new("no repository is named").is_final()),
        }
    }

    fn canonical(settings: TokenizerSettings) -> Result<TokenizerSettings, SettingError> {
        check(&settings)?;
        Ok(settings)
    }

    fn forecast(settings: &TokenizerSettings, _: &FindInput) -> Option<Forecast> {
        // That of an existing one is known when it is there.
        let is_trained = settings.pretrained.is_none();
        is_trained.then_some(Forecast::Tokens {
            vocab_size: settings.vocab_size,
            n_about: None,
        })
    }

    fn run(
        settings: &TokenizerSettings,
        _: &NoSettings,
        io: &StageIo,
    ) -> Result<Metrics, StageError> {
        let folders: Vec<&Path> = io
            .inputs("documents")
            .iter()
            .map(|i| i.path.as_path())
            .collect();
        let documents = match folders.is_empty() {
            true => None,
            false => Some(Documents::open(&folders)?),
        };
        let (mut json, mut stats) = match (&settings.pretrained, &documents) {
            (Some(pretrained), _) => (pretrained.read(io)?, json!({"pretrained": true})),
            (None, Some(documents)) => train(settings, documents, io)?,
            (None, None) => return Err(nothing_to_learn_from()),
        };
        let generation = add_specials(&mut json, settings.template, &settings.special_tokens)?;
        let tokenizer = write(io.out(), &json, generation)?;
        if settings.pretrained.is_none() {
            tell_shortfall(settings, &json, io);
        }
        stats["vocab_size"] = json!(tokenizer.vocab_size());
        stats["special_tokens"] = json!(tokenizer.specials());
        stats["template"] = json!(settings.template);
        write_json(&io.out().join("stats.json"), &stats)?;
        Ok(Metrics::default().count("vocab_size", tokenizer.vocab_size() as u64))
    }
}

fn check(settings: &TokenizerSettings) -> Result<(), SettingError> {
    let n_specials = settings.special_tokens.len() + 5;
    let most = (ID_MAX as usize + 1).saturating_sub(n_specials);
    if settings.pretrained.is_none() && settings.vocab_size > most {
        let message = format!("shards hold ids up to {ID_MAX}, so at most {most} can be learnt");
        return Err(SettingError::new("vocab_size", message));
    }
    if let Some(pretrained) = &settings.pretrained
        && pretrained.hub.is_some() == pretrained.path.is_some()
    {
        let message = "exactly one of `hub` and `path` must be given";
        return Err(SettingError::new("pretrained", message));
    }
    if !(settings.coverage > 0.0 && settings.coverage <= 1.0) {
        return Err(SettingError::new(
            "coverage",
            "must be above 0 and at most 1",
        ));
    }
    if settings.sample_mb == 0 || settings.sample_mb > 2048 {
        return Err(SettingError::new("sample_mb", "must be from 1 to 2048"));
    }
    if settings
        .special_tokens
        .iter()
        .any(|token| token.trim().is_empty())
    {
        return Err(SettingError::new(
            "special_tokens",
            "a token must have a name",
        ));
    }
    Ok(())
}

/// Says when the documents hold fewer tokens than were asked for.
fn tell_shortfall(settings: &TokenizerSettings, json: &Value, io: &StageIo) {
    let vocabulary = &json["model"]["vocab"];
    let n_list = vocabulary.as_array().map(Vec::len);
    let n_learnt = n_list.or(vocabulary.as_object().map(Map::len)).unwrap_or(0);
    if n_learnt < settings.vocab_size {
        let rarer = match settings.min_frequency {
            0 | 1 => "",
            _ => "; `min_frequency: 1` learns rarer ones too",
        };
        let told = format!(
            "{n_learnt} of {} tokens are learnt: the documents hold no more{rarer}",
            settings.vocab_size
        );
        match n_learnt * 10 < settings.vocab_size * 9 {
            true => io.warn(told),
            false => io.info(told),
        }
    }
}

fn nothing_to_learn_from() -> StageError {
    StageError::new("there are no documents to learn from")
        .help("give the stage `inputs`, or set `pretrained`")
        .is_final()
}

fn train(
    settings: &TokenizerSettings,
    documents: &Documents,
    io: &StageIo,
) -> Result<(Value, Value), StageError> {
    let folds_case = matches!(
        settings.algorithm,
        Algorithm::WordLevel | Algorithm::Wordpiece
    );
    let plan = Plan {
        algorithm: settings.algorithm,
        vocab_size: settings.vocab_size,
        min_frequency: settings.min_frequency,
        ties: settings.ties,
        lowercase: settings.lowercase.unwrap_or(folds_case),
        coverage: settings.coverage,
    };
    let (words, sample) = words::count(
        documents,
        &plan,
        settings.sample_mb << 20,
        words::WORDS_MAX,
        io,
    )?;
    if words.is_empty() {
        return Err(StageError::new("the documents hold no words to learn from")
            .help("see the `rejected.jsonl` of the stage that made them")
            .is_final());
    }
    io.progress_note(0, None, "", Some("learning"))?;
    let model = plan.learn(words, io.cancel_flag())?;
    let added = plan.unknown().map(|name| added_token(0, name, true));
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.into_iter().collect::<Vec<Value>>(),
        "normalizer": plan.normalizer(),
        "pre_tokenizer": plan.pre_tokenizer(),
        "post_processor": null,
        "decoder": plan.decoder(),
        "model": model,
    });
    let stats = json!({
        "algorithm": settings.algorithm,
        "sample": sample,
    });
    Ok((json, stats))
}

#[cfg(test)]
mod tests;
