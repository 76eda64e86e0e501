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

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::{Map, Value, json};
use tinylm_model::{
    config::Precision,
    engine::Score,
    generate::{GenerateError, Generator},
    sampler::Sampling,
    shards::{ROLE_ASSISTANT, ROLE_MASK, ROLE_NAMES, Split, TARGET},
};
use tinylm_pipeline::{
    At, Metrics, Role as InputRole, Roles, Stage, StageError, StageIo, choices,
    settings::{LocalPath, NoSettings, SettingError},
};

use crate::shared::{
    speak::{End, Manner, Prompt, SpeakError, Speaker, Variety},
    template::{Role, What},
    tokens::{Tokenizer, TokensError},
};

mod corpus;

use corpus::Corpus;

pub struct Evaluate;

choices! {
    /// Which documents are read.
    pub enum SplitName {
        Validation = "validation",
        Test = "test",
        Train = "train",
    }
}

choices! {
    /// Which tokens every number is about.
    pub enum Scored {
        /// Those that training predicts.
        Targets = "targets",
        All = "all",
    }
}

tinylm_pipeline::settings! {
    /// How well a model predicts a text.
    pub struct EvaluateSettings {
        /// Which of the shards' documents are read.
        pub split: SplitName = SplitName::Validation,
        /// A text file that is read instead of shards or documents, as one document.
        pub file: Option<LocalPath> = None,
        /// Reads at most about this many tokens, from the beginning.
        pub tokens: Option<u64> = None,
        /// Which tokens every number is about: the targets that training predicts, or all,
        /// prompts and tags included.
        pub score: Scored = Scored::Targets,
        /// Lets the model continue the beginnings of this many documents, to measure how
        /// much it repeats itself and how often it comes to an end.
        pub continuations: usize = 16,
        /// Most tokens of a continuation.
        pub max_tokens: usize = 96,
        /// Numbers the weights are rounded to.
        pub precision: Precision = Precision::F32,
    }
}

impl Stage for Evaluate {
    type Settings = EvaluateSettings;
    type Watch = NoSettings;

    const KIND: &'static str = "evaluate";
    const ABOUT: &'static str = "measures how well a model predicts a text";
    const REVISION: u32 = 2;
    const ROLES: Roles = Roles::Fixed(&[
        InputRole::one("model", "what is measured"),
        InputRole::optional("shards", "what it reads: one of the splits"),
        InputRole {
            name: "documents",
            about: "what it reads: whole documents, encoded with the model's tokenizer",
            required: false,
            many: true,
        },
    ]);
    const HEAVY: bool = true;

    fn canonical(settings: EvaluateSettings) -> Result<EvaluateSettings, SettingError> {
        match settings.tokens {
            Some(0) => Err(SettingError::new("tokens", "must be at least 1")),
            _ => Ok(settings),
        }
    }

    fn run(
        settings: &EvaluateSettings,
        _: &NoSettings,
        io: &StageIo,
    ) -> Result<Metrics, StageError> {
        let folder = &io.input("model")?.path;
        let corpus = Corpus::open(settings, io)?;
        let mut speaker = Speaker::open(folder, settings.precision, io.threads())?;
        corpus.check_vocabulary(speaker.tokenizer())?;

        let mut tally = Tally::new(speaker.tokenizer(), settings.score)?;
        let mut beginnings = Beginnings::new(settings, corpus.n_documents());
        let limit = settings.tokens.unwrap_or(u64::MAX);
        corpus.each(folder, io, &mut |text| {
            if tally.n_documents > 0 && tally.n_read + text.ids.len() as u64 > limit {
                return Ok(false);
            }
            beginnings.add(&text, speaker.generator().config().context);
            score(&mut speaker, &text, corpus.n_tokens(limit), &mut tally, io)?;
            Ok(true)
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

        let unigram = unigram_perplexity(corpus.train()?.as_ref(), &tally);
        let generated = continuations(&mut speaker, settings, &beginnings.prompts, io)?;
        let report = report(corpus.name(), &tally, unigram, generated);
        let path = io.out().join("evaluation.json");
        fs::write(&path, format!("{report:#}\n")).at(&path)?;
        Ok(metrics(&report))
    }
}

fn nothing_to_score(scored: Scored) -> StageError {
    let error = StageError::new("there is no token to predict in what is read").is_final();
    match scored {
        Scored::Targets => error.help("`score: all` predicts what is no target, too"),
        Scored::All => error,
    }
}

/// A document as the model reads it.
struct Text {
    ids: Vec<u16>,
    /// As in shards: the role, and whether it is a target.
    roles: Vec<u8>,
    /// Of contents, tags excluded.
    n_bytes: u64,
    source: String,
}

impl Text {
    /// The first token is never scored: nothing stands before it.
    fn is_scored(&self, place: usize, scored: Scored) -> bool {
        place > 0 && (scored == Scored::All || self.roles[place] & TARGET != 0)
    }
}

/// Sums over some tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sums {
    n: u64,
    nll: f64,
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

    fn loss(&self) -> f64 {
        self.nll / self.n as f64
    }

    fn json(&self) -> Value {
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
struct Tally {
    scored: Scored,
    all: Sums,
    by_source: BTreeMap<String, Sums>,
    by_role: BTreeMap<u8, Sums>,
    n_documents: u64,
    /// Tokens of those documents, also those that are not scored.
    n_read: u64,
    size: Size,
    /// How often each id was scored.
    counts: Vec<u64>,
    tags: Tags,
}

impl Tally {
    fn new(tokenizer: &Tokenizer, scored: Scored) -> Result<Tally, StageError> {
        Ok(Tally {
            scored,
            all: Sums::default(),
            by_source: BTreeMap::new(),
            by_role: BTreeMap::new(),
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
fn score(
    speaker: &mut Speaker,
    text: &Text,
    n_all: Option<u64>,
    tally: &mut Tally,
    io: &StageIo,
) -> Result<(), StageError> {
    let before = tally.n_read;
    let progress = |done: usize| io.progress(before + done as u64, n_all, "tokens");
    let scores = rolling_scores(speaker.generator(), &text.ids, &progress)?;
    for (idx, score) in scores.into_iter().enumerate() {
        if text.is_scored(idx + 1, tally.scored) {
            tally.add(text, idx + 1, score);
        }
    }
    let size = size(speaker.tokenizer(), text, &tally.tags, tally.scored)?;
    tally.size.n_bytes += size.n_bytes;
    tally.size.n_words += size.n_words;
    tally.n_documents += 1;
    tally.n_read += text.ids.len() as u64;
    Ok(())
}

/// How much was written in the contents that are scored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Size {
    n_bytes: u64,
    n_words: u64,
}

/// Of a text that is scored from its second token on, the size is that of the whole, its
/// first token included; its bytes are known. Those of a part are the bytes it decodes to.
fn size(
    tokenizer: &Tokenizer,
    text: &Text,
    tags: &Tags,
    scored: Scored,
) -> Result<Size, StageError> {
    let is_whole = (1..text.ids.len()).all(|place| text.is_scored(place, scored));
    let mut counts = tags.are_contents(&text.ids);
    for (place, counts) in counts.iter_mut().enumerate() {
        *counts &= is_whole || text.is_scored(place, scored);
    }
    let mut size = Size::default();
    let places: Vec<(u16, bool)> = text.ids.iter().copied().zip(counts).collect();
    for run in places.chunk_by(|left, right| left.1 == right.1) {
        if !run[0].1 {
            continue;
        }
        let ids: Vec<u32> = run.iter().map(|&(id, _)| u32::from(id)).collect();
        let content = tokenizer.decode(&ids).map_err(SpeakError::from)?;
        size.n_bytes += content.len() as u64;
        size.n_words += content.split_whitespace().count() as u64;
    }
    if is_whole {
        size.n_bytes = text.n_bytes;
    }
    Ok(size)
}

/// What stands between contents, as ids.
struct Tags {
    /// Special tokens: no content has one.
    marks: BTreeSet<u16>,
    /// A mark and ordinary text behind it (`<|im_start|>user`), which therefore cannot be
    /// taken for a content either.
    pairs: Vec<Vec<u16>>,
}

impl Tags {
    fn of(tokenizer: &Tokenizer) -> Result<Tags, TokensError> {
        let specials = tokenizer.specials().values().copied();
        let marks = specials.filter(|&id| Some(id) != tokenizer.unknown_id());
        let turns = [Role::System, Role::User, Role::Assistant].map(|role| (role, ""));
        let pieces = tokenizer.template().pieces(&turns);
        let mut pairs = Vec::new();
        for pair in pieces.windows(2) {
            if !matches!((pair[0].what, pair[1].what), (What::Special(_), What::Tag)) {
                continue;
            }
            let mut ids = Vec::new();
            for piece in pair {
                tokenizer.encoder().piece(piece, &mut ids)?;
            }
            pairs.push(narrow(ids).collect());
        }
        Ok(Tags {
            marks: narrow(marks).collect(),
            pairs,
        })
    }

    /// Whether each of a document's tokens is of a content.
    fn are_contents(&self, ids: &[u16]) -> Vec<bool> {
        let mut are_contents = vec![true; ids.len()];
        for at in 0..ids.len() {
            if self.marks.contains(&ids[at]) {
                let pair = self.pairs.iter().find(|pair| ids[at..].starts_with(pair));
                let n = pair.map_or(1, Vec::len);
                are_contents[at..at + n].fill(false);
            }
        }
        are_contents
    }
}

/// A tokenizer with an id above 16 bits cannot be loaded.
fn narrow(ids: impl IntoIterator<Item = u32>) -> impl Iterator<Item = u16> {
    ids.into_iter().filter_map(|id| u16::try_from(id).ok())
}

/// Scores every token but the first, once, with as much before it as the windows give.
fn rolling_scores(
    generator: &mut Generator,
    ids: &[u16],
    progress: &dyn Fn(usize) -> Result<(), StageError>,
) -> Result<Vec<Score>, StageError> {
    let context = generator.config().context;
    let n = ids.len().saturating_sub(1);
    let mut scores = Vec::with_capacity(n);
    while scores.len() < n {
        let done = scores.len();
        progress(done)?;
        let (start, end) = window(done, n, context);
        let targets = &ids[done + 1..=end];
        let scored = generator.score(&ids[start..end], done - start, targets);
        scores.extend(
            scored
                .map_err(GenerateError::from)
                .map_err(SpeakError::from)?,
        );
    }
    Ok(scores)
}

/// The next window over `n` places of which `done` are scored: where it starts and ends.
fn window(done: usize, n: usize, context: usize) -> (usize, usize) {
    let end = n.min(done + context);
    (done.min(end.saturating_sub(context)), end)
}

/// Perplexity of the scored tokens when each is as likely as it was frequent among those
/// of the training split (one added to each), or, without one, among themselves.
fn unigram_perplexity(train: Option<&Split>, tally: &Tally) -> f64 {
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

/// What the model makes of the beginnings of documents.
struct Generated {
    n: usize,
    n_ended: usize,
    n_tokens: usize,
    variety: Variety,
}

fn continuations(
    speaker: &mut Speaker,
    settings: &EvaluateSettings,
    prompts: &[Prompt],
    io: &StageIo,
) -> Result<Option<Generated>, StageError> {
    let manner = Manner {
        sampling: Sampling::default(),
        seed: 1,
        max_tokens: settings.max_tokens,
        ..Manner::default()
    };
    let n = prompts.len();
    if n == 0 || settings.max_tokens == 0 {
        return Ok(None);
    }
    let (mut texts, mut n_ended, mut n_tokens) = (Vec::new(), 0, 0);
    for (idx, prompt) in prompts.iter().enumerate() {
        io.progress_note(
            idx as u64,
            Some(n as u64),
            "continuations",
            Some("continuing"),
        )?;
        let answer = speaker.answer(prompt, idx as u64, &manner, &mut |_| !io.is_cancelled())?;
        if answer.end == End::Interrupted {
            return Err(StageError::cancelled());
        }
        n_ended += usize::from(answer.end == End::Stop);
        n_tokens += answer.n_tokens;
        texts.push(answer.text);
    }
    Ok(Some(Generated {
        n,
        n_ended,
        n_tokens,
        variety: Variety::of(texts.iter().map(String::as_str)),
    }))
}

/// Beginnings of some documents, spread over all, so that not all come from one source.
struct Beginnings {
    n: u64,
    n_documents: u64,
    n_seen: u64,
    prompts: Vec<Prompt>,
}

impl Beginnings {
    fn new(settings: &EvaluateSettings, n_documents: u64) -> Beginnings {
        Beginnings {
            n: (settings.continuations as u64).min(n_documents),
            n_documents,
            n_seen: 0,
            prompts: Vec::new(),
        }
    }

    fn add(&mut self, text: &Text, context: usize) {
        let due = self.prompts.len() as u64 * self.n_documents;
        if (self.prompts.len() as u64) < self.n && due <= self.n_seen * self.n {
            self.prompts.push(beginning(text, context));
        }
        self.n_seen += 1;
    }
}

/// Up to where the assistant first has to speak; of a text, its first tokens.
fn beginning(text: &Text, context: usize) -> Prompt {
    let is_reply = |role: &u8| *role & TARGET != 0 && *role & ROLE_MASK == ROLE_ASSISTANT;
    let reply = text
        .roles
        .iter()
        .skip(1)
        .position(is_reply)
        .map(|at| at + 1);
    let n = reply.unwrap_or_else(|| text.ids.len().min(32).min(context.div_ceil(4)));
    Prompt {
        ids: text.ids[..n].to_vec(),
        n_stay: 0,
        n_turns_left_out: 0,
    }
}

fn report(read: &str, tally: &Tally, unigram: f64, generated: Option<Generated>) -> Value {
    let mut report = Map::new();
    let mut put = |name: &str, value: Value| report.insert(name.to_owned(), value);
    put("read", json!(read));
    put("documents", json!(tally.n_documents));
    put("tokens_read", json!(tally.n_read));
    put("score", json!(tally.scored));
    put("tokens", json!(tally.all.n));
    put("bytes", json!(tally.size.n_bytes));
    put("words", json!(tally.size.n_words));
    let all = tally.all.json();
    for name in ["loss", "perplexity", "accuracy_top1", "accuracy_top5"] {
        put(name, all[name].clone());
    }
    put("unigram_perplexity", json!(unigram));
    if tally.size.n_bytes > 0 {
        let per_byte = tally.all.nll / tally.size.n_bytes as f64;
        put("bits_per_byte", json!(per_byte / std::f64::consts::LN_2));
        put("byte_perplexity", json!(per_byte.exp()));
    }
    if tally.size.n_words > 0 {
        let per_word = tally.all.nll / tally.size.n_words as f64;
        put("word_perplexity", json!(per_word.exp()));
    }
    let by_source = tally
        .by_source
        .iter()
        .map(|(name, sums)| (name.clone(), sums.json()));
    put("by_source", Value::Object(by_source.collect()));
    let role = |idx: u8| ROLE_NAMES[usize::from(idx)].to_owned();
    let by_role = tally
        .by_role
        .iter()
        .map(|(idx, sums)| (role(*idx), sums.json()));
    put("by_role", Value::Object(by_role.collect()));
    if let Some(generated) = generated {
        let n = generated.n as f64;
        put(
            "generated",
            json!({
                "continuations": generated.n,
                "tokens_per_answer": generated.n_tokens as f64 / n,
                "end_rate": generated.n_ended as f64 / n,
                "distinct_1": generated.variety.distinct_1,
                "distinct_2": generated.variety.distinct_2,
                "repetition": generated.variety.repetition,
            }),
        );
    }
    Value::Object(report)
}

/// The numbers of the report, those of its parts named `PART.NAME`.
fn metrics(report: &Value) -> Metrics {
    let mut metrics = Metrics::default();
    collect(&mut metrics, "", report);
    metrics
}

fn collect(metrics: &mut Metrics, prefix: &str, value: &Value) {
    let Value::Object(map) = value else { return };
    for (name, value) in map {
        let path = match prefix {
            "" => name.clone(),
            _ => format!("{prefix}.{name}"),
        };
        match value.as_f64() {
            Some(number) => metrics.0.push((path, number)),
            None => collect(metrics, &path, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use tempfile::TempDir;
    use tinylm_model::{
        config::{ModelConfig, Precision},
        engine::Tensor,
        generate::Generator,
        weights::write_tensors,
    };
    use tinylm_pipeline::testing::StageTest;

    use super::*;
    use crate::shared::{
        speak::fixture::{
            END_OF_TEXT, IM_END, config, dialogue, tensors, write_model, write_shards,
        },
        template::Template,
        testing::Corpus,
    };

    fn documents() -> Vec<(u16, Vec<u16>, Vec<u8>)> {
        let texts = [
            ("hi", "hello there"),
            ("how are you ?", "fine . and you ?"),
            ("x", "y"),
        ];
        let documents = texts.iter().enumerate();
        documents
            .map(|(idx, (user, assistant))| {
                let (ids, roles) = dialogue(user, assistant);
                (idx as u16 % 2, ids, roles)
            })
            .collect()
    }

    fn project(documents: &[(u16, Vec<u16>, Vec<u8>)]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        write_model(&dir.path().join("model"), &config());
        write_shards(&dir.path().join("shards"), "validation", documents);
        dir
    }

    fn evaluate(dir: &Path, settings: &str) -> Result<Value, StageError> {
        let test = StageTest::new(dir);
        let test = test
            .input("model", &dir.join("model"))
            .input("shards", &dir.join("shards"));
        let outcome = test.run::<Evaluate>(settings)?;
        let text = fs::read_to_string(outcome.out.join("evaluation.json")).unwrap();
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(outcome.metrics.get("loss"), report["loss"].as_f64());
        Ok(report)
    }

    #[track_caller]
    fn close(found: &Value, want: f64) {
        let found = found.as_f64().unwrap();
        assert!(
            (found - want).abs() < 1e-4 * want.abs().max(1.0),
            "{found}, not {want}"
        );
    }

    #[test]
    fn numbers_are_those_of_the_definition() {
        let documents = documents();
        let dir = project(&documents);
        for (score, is_all) in [("targets", false), ("all", true)] {
            let settings = format!("{{score: {score}, continuations: 2, max_tokens: 4}}");
            let report = evaluate(dir.path(), &settings).unwrap();
            let mut generator =
                Generator::from_tensors(config(), &tensors(&config()), Precision::F32, 1).unwrap();
            let (mut sum, mut n, mut n_bytes, mut n_read) = (0.0, 0, 0, 0);
            for (_, ids, roles) in &documents {
                assert!(ids.len() <= 64, "each fits one window");
                generator.truncate(0);
                for place in 1..ids.len() {
                    let logits = generator.feed(&ids[place - 1..place]).unwrap();
                    let normal: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
                    if is_all || roles[place] & TARGET != 0 {
                        sum += normal.ln() - f64::from(logits[usize::from(ids[place])]);
                        n += 1;
                        n_bytes += u32::from(ids[place] < 256);
                    }
                }
                n_read += ids.len();
            }
            assert_eq!(report["tokens"], n);
            assert_eq!(report["tokens_read"], n_read);
            assert_eq!(report["bytes"], n_bytes);
            close(&report["loss"], sum / f64::from(n));
            close(&report["perplexity"], (sum / f64::from(n)).exp());
            close(
                &report["bits_per_byte"],
                sum / f64::from(n_bytes) / 2f64.ln(),
            );
            close(&report["byte_perplexity"], (sum / f64::from(n_bytes)).exp());
            let words = report["words"].as_f64().unwrap();
            close(&report["word_perplexity"], (sum / words).exp());
        }
    }

    /// A model for which what comes next does not depend on what stands before: these
    /// tokens are so many times as likely as each other one.
    fn write_biased_model(folder: &Path, likely: &[(u16, f32)]) {
        let mut config = ModelConfig {
            tied: false,
            ..config()
        };
        config.bias.head = true;
        write_model(folder, &config);
        let mut tensors = tensors(&config);
        tensors
            .values_mut()
            .for_each(|tensor| tensor.data.fill(0.0));
        let Tensor { data: bias, .. } = tensors.get_mut("head.bias").unwrap();
        for (id, times) in likely {
            bias[usize::from(*id)] = times.ln();
        }
        write_tensors(&folder.join("model.safetensors"), &tensors).unwrap();
    }

    #[test]
    fn a_tiny_case_gives_what_one_works_out_by_hand() {
        let dir = project(&[]);
        let [a, b, c, d, e] = [b'a', b'b', b'c', b'd', b'e'].map(u16::from);
        let likely = [(a, 16.0), (b, 8.0), (c, 4.0), (d, 2.0), (e, 1.5)];
        write_biased_model(&dir.path().join("model"), &likely);
        // A text, `ab az` and its end, of which all but the first are predicted.
        let mut text: Vec<u16> = "ab az".bytes().map(u16::from).collect();
        text.push(END_OF_TEXT);
        let roles = vec![TARGET; text.len()];
        // A dialogue, of which `b` and the end of the turn are predicted.
        let (talk, talk_roles) = dialogue("c", "b");
        let documents = [(0, text, roles), (1, talk, talk_roles)];
        write_shards(&dir.path().join("shards"), "validation", &documents);
        let report = evaluate(dir.path(), "{continuations: 0}").unwrap();

        // All weights together, the 254 others with one each.
        let sum = 16.0 + 8.0 + 4.0 + 2.0 + 1.5 + 254.0_f64;
        // `b`, ` `, `a`, `z` and the end; `b` and the end.
        let of_text = 5.0 * sum.ln() - 8_f64.ln() - 16_f64.ln();
        let of_talk = 2.0 * sum.ln() - 8_f64.ln();
        let nll = of_text + of_talk;
        for (part, name, n, nll, first, first_five) in [
            ("by_source", "first", 5.0, of_text, 1.0, 2.0),
            ("by_source", "second", 2.0, of_talk, 0.0, 1.0),
            ("by_role", "text", 5.0, of_text, 1.0, 2.0),
            ("by_role", "assistant", 2.0, of_talk, 0.0, 1.0),
        ] {
            let sums = &report[part][name];
            close(&sums["tokens"], n);
            close(&sums["loss"], nll / n);
            close(&sums["perplexity"], (nll / n).exp());
            close(&sums["accuracy_top1"], first / n);
            close(&sums["accuracy_top5"], first_five / n);
        }
        // The five bytes of the text, its first included, and the one of the reply.
        let (n, n_bytes, n_words) = (7.0, 6.0, 3.0);
        for (name, value) in [
            ("documents", 2.0),
            ("tokens", n),
            ("bytes", n_bytes),
            ("words", n_words),
            ("loss", nll / n),
            ("perplexity", (nll / n).exp()),
            ("accuracy_top1", 1.0 / n),
            ("accuracy_top5", 3.0 / n),
            ("bits_per_byte", nll / 2_f64.ln() / n_bytes),
            ("byte_perplexity", (nll / n_bytes).exp()),
            ("word_perplexity", (nll / n_words).exp()),
        ] {
            close(&report[name], value);
        }
    }

    #[test]
    fn generated_text_is_measured_by_its_ends_and_its_words() {
        let dir = project(&documents());
        for (says, end_rate, tokens_per_answer, distinct_1) in [
            // Nothing at all, three times.
            (IM_END, 1.0, 1.0, 0.0),
            // One word without an end, the same three times.
            (u16::from(b'a'), 0.0, 9.0, 1.0 / 3.0),
        ] {
            write_biased_model(&dir.path().join("model"), &[(says, 1e9)]);
            let report = evaluate(dir.path(), "{max_tokens: 9}").unwrap();
            let generated = &report["generated"];
            close(&generated["continuations"], 3.0);
            close(&generated["end_rate"], end_rate);
            close(&generated["tokens_per_answer"], tokens_per_answer);
            close(&generated["distinct_1"], distinct_1);
        }
    }

    #[test]
    fn a_document_counts_the_same_alone_and_among_others_in_any_order() {
        let mut documents = documents();
        let dir = project(&documents);
        let whole = evaluate(dir.path(), "{}").unwrap();
        let n = |report: &Value| report["tokens"].as_f64().unwrap();
        let nll = |report: &Value| report["loss"].as_f64().unwrap() * n(report);
        let (mut n_alone, mut nll_alone) = (0.0, 0.0);
        for document in &documents {
            let one = std::slice::from_ref(document);
            write_shards(&dir.path().join("shards"), "validation", one);
            let report = evaluate(dir.path(), "{}").unwrap();
            n_alone += n(&report);
            nll_alone += nll(&report);
        }
        assert_eq!(n(&whole), n_alone);
        assert!((nll(&whole) - nll_alone).abs() < 1e-9 * nll_alone);
        documents.reverse();
        write_shards(&dir.path().join("shards"), "validation", &documents);
        let reversed = evaluate(dir.path(), "{}").unwrap();
        assert!((nll(&whole) - nll(&reversed)).abs() < 1e-9 * nll_alone);
    }

    #[test]
    fn a_model_that_has_diverged_is_named_as_such() {
        let dir = project(&documents());
        let mut broken = tensors(&config());
        broken
            .values_mut()
            .for_each(|tensor| tensor.data.fill(f32::NAN));
        write_tensors(&dir.path().join("model/model.safetensors"), &broken).unwrap();
        let error = evaluate(dir.path(), "{continuations: 0}").unwrap_err();
        let message = "the model's loss is NaN: its weights have diverged";
        assert_eq!((error.message.as_str(), error.is_final), (message, true));
    }

    #[test]
    fn every_number_is_about_the_same_tokens() {
        let mut documents = documents();
        let mut raw: Vec<u16> = "once upon a time".bytes().map(u16::from).collect();
        raw.push(END_OF_TEXT);
        let roles = vec![TARGET; raw.len()];
        documents.push((1, raw, roles));
        let dir = project(&documents);
        // Of the replies and the raw text, and of the questions too.
        for (score, roles, n_words) in [
            ("targets", &["assistant", "text"][..], 2 + 5 + 1 + 4),
            ("all", &["assistant", "text", "user"], 3 + 9 + 2 + 4),
        ] {
            let report = evaluate(dir.path(), &format!("{{score: {score}}}")).unwrap();
            let number = |name: &str| report[name].as_f64().unwrap();
            let nll = number("loss") * number("tokens");
            for part in ["by_role", "by_source"] {
                let parts = report[part].as_object().unwrap();
                let of = |sums: &Value, name: &str| sums[name].as_f64().unwrap();
                let n: f64 = parts.values().map(|sums| of(sums, "tokens")).sum();
                let sum: f64 = parts
                    .values()
                    .map(|sums| of(sums, "tokens") * of(sums, "loss"))
                    .sum();
                assert_eq!(n, number("tokens"), "{part}");
                close(&report["loss"], sum / n);
            }
            let names = |part: &str| -> BTreeSet<String> {
                report[part].as_object().unwrap().keys().cloned().collect()
            };
            assert!(names("by_role").iter().eq(roles));
            assert!(names("by_source").iter().eq(["first", "second"]));
            close(
                &json!(number("bits_per_byte") * number("bytes") * 2f64.ln()),
                nll,
            );
            close(
                &json!(number("byte_perplexity").ln() * number("bytes")),
                nll,
            );
            close(
                &json!(number("word_perplexity").ln() * number("words")),
                nll,
            );
            assert_eq!(report["words"], n_words);
            assert_eq!(report["generated"]["continuations"], 4);
        }
    }

    #[test]
    fn without_targets_all_tokens_can_be_scored() {
        let dir = project(&[(0, vec![97, 98, 99], vec![0; 3])]);
        let error = evaluate(dir.path(), "{}").unwrap_err();
        assert_eq!(
            error.message,
            "there is no token to predict in what is read"
        );
        let report = evaluate(dir.path(), "{score: all, continuations: 0}").unwrap();
        assert_eq!(report["tokens"], 2);
        assert_eq!(report["bytes"], 3, "as in lm-eval, also of the first token");
    }

    #[test]
    fn a_document_longer_than_the_context_is_scored_whole() {
        let ids: Vec<u16> = (0..150).map(|i| i * 31 % 256).collect();
        let roles = vec![0x80; ids.len()];
        let dir = project(&[(0, ids.clone(), roles)]);
        let report = evaluate(dir.path(), "{continuations: 0}").unwrap();
        assert_eq!(report["tokens"], 149);
        // Token 140 is in the last window, which reaches back over a whole context.
        let mut generator =
            Generator::from_tensors(config(), &tensors(&config()), Precision::F32, 1).unwrap();
        let scores = rolling_scores(&mut generator, &ids, &|_| Ok(())).unwrap();
        let alone = generator.score(&ids[85..140], 54, &ids[140..=140]).unwrap();
        assert!((scores[139].nll - alone[0].nll).abs() < 1e-4);
    }

    #[test]
    fn unigram_perplexity_is_that_of_the_frequencies() {
        // Three targets a, one target b, and no training split: entropy of (3/4, 1/4).
        let dir = project(&[(0, vec![0, 97, 97, 97, 98], vec![0, 0x80, 0x80, 0x80, 0x80])]);
        let report = evaluate(dir.path(), "{continuations: 0}").unwrap();
        let entropy = -(0.75 * 0.75f64.ln() + 0.25 * 0.25f64.ln());
        close(&report["unigram_perplexity"], entropy.exp());
    }

    #[test]
    fn a_limit_reads_whole_documents_from_the_beginning() {
        let documents = documents();
        let first = documents[0].1.len();
        let dir = project(&documents);
        for (tokens, n) in [(1, 1), (first, 1), (first + 1, 1), (1_000_000, 3)] {
            let report = evaluate(
                dir.path(),
                &format!("{{tokens: {tokens}, continuations: 0}}"),
            )
            .unwrap();
            assert_eq!(report["documents"], n, "{tokens}");
        }
    }

    #[test]
    fn a_file_and_documents_are_read_like_shards() {
        let dir = project(&documents());
        let path = dir.path().join("story.txt");
        fs::write(&path, "once upon a time").unwrap();
        let test = StageTest::new(dir.path()).input("model", &dir.path().join("model"));
        let read = test
            .clone()
            .local_file("file", &path)
            .run::<Evaluate>("{file: story.txt}")
            .unwrap();
        assert_eq!(read.metrics.get("bytes"), Some(16.0));
        // All but the first byte, and the end of the text.
        assert_eq!(read.metrics.get("tokens"), Some(16.0));
        assert_eq!(read.metrics.get("words"), Some(4.0));

        let mut corpus = Corpus::new(Template::Chatml);
        corpus.dialogue(&[(Role::User, "hi"), (Role::Assistant, "hello there")]);
        corpus.write(&dir.path().join("documents"));
        let test = test.input("documents", &dir.path().join("documents"));
        let read = test.clone().run::<Evaluate>("{}").unwrap();
        write_shards(&dir.path().join("shards"), "validation", &documents()[..1]);
        let shards = evaluate(dir.path(), "{}").unwrap();
        assert_eq!(read.metrics.get("loss"), shards["loss"].as_f64());
        assert_eq!(
            read.metrics.get("word_perplexity"),
            shards["word_perplexity"].as_f64()
        );
        assert_eq!(read.metrics.get("words"), Some(2.0), "hello there");
        assert_eq!(read.metrics.get("bytes"), Some(11.0));
        let read = test.run::<Evaluate>("{score: all}").unwrap();
        assert_eq!(read.metrics.get("words"), Some(3.0), "hi hello there");
        assert_eq!(read.metrics.get("bytes"), Some(13.0));
    }

    #[test]
    fn exactly_one_text_is_read() {
        let dir = project(&documents());
        let test = StageTest::new(dir.path()).input("model", &dir.path().join("model"));
        let error = test.run::<Evaluate>("{}").unwrap_err();
        assert_eq!(
            error.message,
            "a model is evaluated on one of `shards`, `documents` and `file`"
        );
    }

    #[test]
    fn shards_of_another_tokenizer_are_refused() {
        let dir = project(&documents());
        let path = dir.path().join("shards/shards.json");
        let text = fs::read_to_string(&path).unwrap().replace("259", "300");
        fs::write(&path, text).unwrap();
        let error = evaluate(dir.path(), "{}").unwrap_err();
        assert_eq!(
            error.message,
            "the shards have a vocabulary of 300, the model's tokenizer one of 259"
        );
        let error = evaluate(dir.path(), "{split: test}").unwrap_err();
        assert!(error.is_final);
    }

    proptest! {
        #[test]
        fn windows_score_every_place_once_and_fit_the_context(n in 1usize..400, context in 1usize..50) {
            let mut done = 0;
            while done < n {
                let (start, end) = window(done, n, context);
                prop_assert!(start <= done && done < end && end - start <= context);
                // All but the first see as much as fits.
                prop_assert!(start == 0 || end - start == context);
                done = end;
            }
            prop_assert_eq!(done, n);
        }
    }

    #[test]
    fn windows_are_those_of_lm_eval() {
        let mut windows = Vec::new();
        let mut done = 0;
        while done < 10 {
            let (start, end) = window(done, 10, 4);
            windows.push((start, done, end));
            done = end;
        }
        assert_eq!(windows, [(0, 0, 4), (4, 4, 8), (6, 8, 10)]);
    }
}
