//! How well a model predicts a text.
//!
//! Every document is read alone, from its beginning, in windows as long as the model's
//! context; each window begins where the one before ended, the last one reaches back
//! over a whole context (the rolling windows of lm-eval). So every token but the first
//! is predicted exactly once, and the numbers depend neither on batches nor on packing.
//!
//! Every number is about the same *scored* tokens. By default they are the targets, the
//! tokens that training predicts (with a dialogue model, its own turns; of a raw text,
//! all): so `loss` is comparable with the `validation_loss` of training, and no number
//! counts tags and prompts that the model was never to predict. `score: all` scores all.
//!
//! `bits_per_byte`, `byte_perplexity` and `word_perplexity` are the same sum divided by
//! the bytes and words of what is scored, tags excluded: comparable between tokenizers,
//! and for raw text and `score: all` what lm-eval calls by these names.
//!
//! `unigram_perplexity` is what knowing nothing but how frequent each token is would
//! reach on the same tokens: a model that is not far below it has learned no language.
//!
//! `documents.jsonl` has a line for each document that was read, in their order: `digest` of its
//! contents, the `tokens` that were scored, the `bytes` they stand for, and their summed loss in
//! `nats`. So two evaluations can be held against each other document by document, also of models
//! with different tokenizers (`evaluate/losses.rs`).
//!
//! Of the input `tasks` it measures how well the model answers the questions of known tasks, beside
//! a text or alone (`evaluate/tasks.rs`).

use std::{collections::BTreeMap, fs};

use serde_json::{Map, Value, json};
use tinylm_model::{config::ReadPrecision, folder::Which};
use tinylm_pipeline::spec::keys::Key;
use tinylm_pipeline::{
    At, Content, Metrics, Role as InputRole, Roles, Stage, StageError, StageIo,
    settings::{Choice, LocalPath, NoSettings, SettingError},
};

use crate::shared::speak::Speaker;

mod corpus;
mod generated;
mod losses;
mod report;
mod size;
mod tally;
mod tasks;
mod text;
mod windows;

pub use corpus::SplitName;
pub use text::Scored;
use text::Text;

use corpus::Corpus;
use generated::{Beginnings, continuations};
use report::{metrics, report};
use tally::{Tally, score, unigram_perplexity};
use tasks::Asked;

pub struct Evaluate;

tinylm_pipeline::settings! {
    /// How well a model predicts a text.
    pub struct EvaluateSettings {
        /// Which of the shards' documents are read.
        pub split: SplitName = SplitName::Validation,
        /// A text file that is read instead of shards or documents, as one document.
        pub file: Option<LocalPath> = None,
        /// Reads at most about this many tokens, from the beginning.
        #[range(1)]
        pub tokens: Option<u64> = None,
        /// Which tokens every number is about: the targets that training predicts, or all,
        /// prompts and tags included.
        pub score: Scored = Scored::Targets,
        /// Lets the model continue the beginnings of this many documents, to measure how
        /// much it repeats itself and how often it comes to an end.
        pub continuations: usize = 16,
        /// Most tokens of a continuation.
        pub max_tokens: usize = 96,
        /// Which of the model's weights.
        pub weights: Which = Which::Best => neutral Which::Best,
        /// Numbers the weights are rounded to; of `int8` the same tokens are read in f32 too, to say
        /// what it costs.
        pub precision: ReadPrecision = ReadPrecision::F32,
        /// Which files of the input `tasks` are measured, by their names without `.jsonl`; without
        /// it, all.
        pub tasks: Vec<String> = Vec::new() => neutral Vec::<String>::new(),
        /// At most so many examples of each task, in the order of CORE.
        #[range(1)]
        pub examples: Option<usize> = None => neutral None::<usize>,
        /// Solved examples before each question, by task, where not those of CORE.
        pub shots: BTreeMap<String, usize> = BTreeMap::new() => neutral BTreeMap::<String, usize>::new(),
        /// The text between a question and its answer, by task, where not that of CORE.
        pub delimiters: BTreeMap<String, String> = BTreeMap::new() => neutral BTreeMap::<String, String>::new(),
        /// The share of right answers that guessing reaches, by task.
        pub baselines: BTreeMap<String, f64> = BTreeMap::new() => neutral BTreeMap::<String, f64>::new(),
    }
}

impl Stage for Evaluate {
    type Settings = EvaluateSettings;
    type Watch = NoSettings;

    const KIND: &'static str = "evaluate";
    const ABOUT: &'static str = "measures how well a model predicts a text";
    const REVISION: u32 = 4;
    const MAKES: Content = Content::Figures;
    const METRICS: &'static [Key] = report::METRICS;
    const ROLES: Roles = Roles::Fixed(&[
        InputRole::one("model", "what is measured").takes(&[Content::Model]),
        InputRole::one("shards", "what it reads: one of the splits")
            .optional()
            .takes(&[Content::Shards]),
        InputRole::many(
            "documents",
            "what it reads: whole documents, encoded with the model's tokenizer",
        )
        .optional()
        .takes(&[Content::Documents]),
        InputRole::many(
            "tasks",
            "questions with known answers: files in the forms of CORE and BLiMP, an example a line",
        )
        .optional()
        .takes(&[Content::Files]),
        InputRole::many(
            "training",
            "documents of the training, in which the examples of `tasks` are looked for",
        )
        .optional()
        .takes(&[Content::Documents]),
    ]);
    const HEAVY: bool = true;
    const ON_DEVICE: bool = true;

    fn canonical(settings: EvaluateSettings) -> Result<EvaluateSettings, SettingError> {
        if settings.tokens == Some(0) {
            return Err(SettingError::new("tokens", "must be at least 1"));
        }
        if settings.examples == Some(0) {
            return Err(SettingError::new("examples", "must be at least 1"));
        }
        let is_share = |share: &f64| (0.0..1.0).contains(share);
        if !settings.baselines.values().all(is_share) {
            return Err(SettingError::new(
                "baselines",
                "a baseline is a share below 1",
            ));
        }
        Ok(settings)
    }

    fn run(
        settings: &EvaluateSettings,
        _: &NoSettings,
        io: &StageIo,
    ) -> Result<Metrics, StageError> {
        let folder = &io.input("model")?.path;
        let corpus = Corpus::open(settings.split, settings.file.is_some(), io)?;
        let weights = (settings.weights, settings.precision);
        let mut speaker = Speaker::of_stage(io, folder, weights)?;
        let mut figures = match &corpus {
            Some(corpus) => of_text(corpus, &mut speaker, settings, io)?,
            None => Map::new(),
        };
        let asked = Asked {
            tasks: &settings.tasks,
            examples: settings.examples,
            shots: &settings.shots,
            delimiters: &settings.delimiters,
            baselines: &settings.baselines,
        };
        asked.check(!io.inputs("tasks").is_empty())?;
        if !io.inputs("tasks").is_empty() {
            figures.extend(tasks::measure(&mut speaker, &asked, io)?);
        }
        let report = Value::Object(figures);
        let path = io.out().join("evaluation.json");
        fs::write(&path, format!("{report:#}\n")).at(&path)?;
        Ok(metrics(&report))
    }
}

/// How well the model predicts a text.
fn of_text(
    corpus: &Corpus,
    speaker: &mut Speaker,
    settings: &EvaluateSettings,
    io: &StageIo,
) -> Result<Map<String, Value>, StageError> {
    corpus.check_vocabulary(speaker.tokenizer())?;

    let mut beginnings = Beginnings::new(settings.continuations, corpus.n_documents());
    let context = speaker.session().config().context;
    let tally = tally(corpus, speaker, settings, io, &mut |text| {
        beginnings.add(text, context);
    })?;
    if tally.all.n == 0 {
        return Err(nothing_to_score(settings.score));
    }
    if !tally.all.nll.is_finite() {
        let message = format!(
            "the model's loss is {}: its weights have diverged",
            tally.all.loss()
        );
        return Err(StageError::new(message).is_final());
    }

    losses::write(&tally.losses, io)?;
    let unigram = unigram_perplexity(corpus.train()?.as_ref(), &tally);
    let generated = continuations(speaker, settings.max_tokens, &beginnings.prompts, io)?;
    let mut report = report(corpus.name(), &tally, unigram, generated);
    if settings.precision == ReadPrecision::Int8 {
        report.extend(cost(corpus, &tally, settings, io)?);
    }
    Ok(report)
}

/// Reads the documents, at most so many tokens of them, and adds up how well they are predicted.
fn tally(
    corpus: &Corpus,
    speaker: &mut Speaker,
    settings: &EvaluateSettings,
    io: &StageIo,
    each: &mut dyn FnMut(&Text),
) -> Result<Tally, StageError> {
    let mut tally = Tally::new(speaker.tokenizer(), settings.score)?;
    let limit = settings.tokens.unwrap_or(u64::MAX);
    corpus.each(&io.input("model")?.path, io, &mut |text| {
        if tally.n_documents > 0 && tally.n_read + text.ids.len() as u64 > limit {
            return Ok(false);
        }
        each(&text);
        score(speaker, &text, corpus.n_tokens(limit), &mut tally, io)?;
        Ok(true)
    })?;
    Ok(tally)
}

/// What eight bits cost: the same tokens are read once more in f32.
fn cost(
    corpus: &Corpus,
    rounded: &Tally,
    settings: &EvaluateSettings,
    io: &StageIo,
) -> Result<Map<String, Value>, StageError> {
    let folder = &io.input("model")?.path;
    let mut speaker = Speaker::open(folder, settings.weights, ReadPrecision::F32, io.threads())?;
    let exact = tally(corpus, &mut speaker, settings, io, &mut |_| ())?;
    let [rounded, exact] = [rounded, &exact].map(|tally| tally.all.loss().exp());
    let cost = rounded / exact - 1.0;
    let precision = settings.precision.word();
    io.note(format!(
        "{precision} costs {:+.3} % of perplexity: {rounded:.4}, and {exact:.4} in f32",
        100.0 * cost
    ));
    let figures = [("f32_perplexity", exact), ("precision_cost", cost)];
    Ok(figures
        .map(|(name, figure)| (name.to_owned(), json!(figure)))
        .into_iter()
        .collect())
}

fn nothing_to_score(scored: Scored) -> StageError {
    let error = StageError::new("there is no token to predict in what is read").is_final();
    match scored {
        Scored::Targets => error.help("`score: all` predicts what is no target, too"),
        Scored::All => error,
    }
}

#[cfg(test)]
mod tests;
