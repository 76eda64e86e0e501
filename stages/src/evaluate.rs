//! How well a model predicts a text.
//!
//! Every document is read alone, from its beginning, in windows as long as the model's
//! context; each window begins where the one before ended, the last one reaches back
//! over a whole context (the rolling windows of lm-eval). So every token but the first
//! is predicted exactly once, and the numbers depend neither on batches nor on packing.
//!
//! `loss`, `perplexity` and `accuracy_*` are means over the *targets*, the tokens that
//! training predicts (with a dialogue model, its own turns): comparable with the
//! `validation_loss` of training. `bits_per_byte`, `byte_perplexity` and
//! `word_perplexity` are sums over *all* tokens, divided by the bytes and words of the
//! contents, tags excluded: comparable between tokenizers.
//!
//! `unigram_perplexity` is what knowing nothing but how frequent each token is would
//! reach on the same targets: a model that is not far below it has learned no language.

use std::{collections::BTreeMap, fs};

use serde_json::{Map, Value, json};
use tinylm_model::{
    engine::Score,
    generate::{GenerateError, Generator},
    sampler::Sampling,
    shards::{ROLE_ASSISTANT, ROLE_MASK, ROLE_NAMES, Split, TARGET},
};
use tinylm_pipeline::{
    At, Metrics, Role as InputRole, Roles, Stage, StageError, StageIo, choices,
    settings::{LocalPath, NoSettings, SettingError},
};

use crate::{
    sample::Numbers,
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

tinylm_pipeline::settings! {
    /// How well a model predicts a text.
    pub struct EvaluateSettings {
        /// Which of the shards' documents are read.
        pub split: SplitName = SplitName::Validation,
        /// A text file that is read instead of shards or documents, as one document.
        pub file: Option<LocalPath> = None,
        /// Reads at most about this many tokens, from the beginning.
        pub tokens: Option<u64> = None,
        /// Lets the model continue the beginnings of this many documents, to measure how
        /// much it repeats itself and how often it comes to an end.
        pub continuations: usize = 16,
        /// Most tokens of a continuation.
        pub max_tokens: usize = 96,
        /// Numbers the weights are rounded to.
        pub precision: Numbers = Numbers::F32,
    }
}

impl Stage for Evaluate {
    type Settings = EvaluateSettings;
    type Watch = NoSettings;

    const KIND: &'static str = "evaluate";
    const ABOUT: &'static str = "measures how well a model predicts a text";
    const REVISION: u32 = 1;
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
        let mut speaker = Speaker::open(folder, settings.precision.precision(), io.threads())?;
        corpus.check_vocabulary(speaker.tokenizer())?;

        let mut tally = Tally::new(speaker.tokenizer())?;
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
            return Err(StageError::new("there is no token to predict in what is read").is_final());
        }

        let unigram = unigram_perplexity(corpus.train()?.as_ref(), &tally);
        let generated = continuations(&mut speaker, settings, &beginnings.prompts, io)?;
        let report = report(corpus.name(), &tally, unigram, generated);
        let path = io.out().join("evaluation.json");
        fs::write(&path, format!("{report:#}\n")).at(&path)?;
        Ok(metrics(&report))
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
    all: Sums,
    targets: Sums,
    /// Targets by source.
    by_source: BTreeMap<String, Sums>,
    /// All tokens by role.
    by_role: BTreeMap<u8, Sums>,
    n_documents: u64,
    /// Tokens of those documents, their first ones included.
    n_read: u64,
    n_bytes: u64,
    n_words: u64,
    /// How often each id was a target.
    counts: Vec<u64>,
    tags: Vec<Vec<u16>>,
}

impl Tally {
    fn new(tokenizer: &Tokenizer) -> Result<Tally, StageError> {
        Ok(Tally {
            all: Sums::default(),
            targets: Sums::default(),
            by_source: BTreeMap::new(),
            by_role: BTreeMap::new(),
            n_documents: 0,
            n_read: 0,
            n_bytes: 0,
            n_words: 0,
            counts: vec![0; tokenizer.vocab_size()],
            tags: tags(tokenizer).map_err(SpeakError::from)?,
        })
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
        let place = idx + 1;
        let role = text.roles[place];
        tally.all.add(score);
        tally
            .by_role
            .entry(role & ROLE_MASK)
            .or_default()
            .add(score);
        if role & TARGET != 0 {
            tally.targets.add(score);
            tally
                .by_source
                .entry(text.source.clone())
                .or_default()
                .add(score);
            tally.counts[usize::from(text.ids[place])] += 1;
        }
    }
    tally.n_words += n_words(speaker.tokenizer(), &text.ids, &tally.tags)?;
    tally.n_bytes += text.n_bytes;
    tally.n_documents += 1;
    tally.n_read += text.ids.len() as u64;
    Ok(())
}

/// Words of the contents.
fn n_words(tokenizer: &Tokenizer, ids: &[u16], tags: &[Vec<u16>]) -> Result<u64, StageError> {
    let mut n_words = 0;
    let mut rest = ids;
    while !rest.is_empty() {
        let tag_len = |rest: &[u16]| tags.iter().find(|tag| rest.starts_with(tag)).map(Vec::len);
        let is_content = |at: &usize| tag_len(&rest[*at..]).is_none();
        let n_content = (0..rest.len()).take_while(is_content).count();
        let (content, after) = rest.split_at(n_content);
        let content: Vec<u32> = content.iter().map(|&id| u32::from(id)).collect();
        let text = tokenizer.decode(&content).map_err(SpeakError::from)?;
        n_words += text.split_whitespace().count() as u64;
        rest = &after[tag_len(after).unwrap_or(0)..];
    }
    Ok(n_words)
}

/// The tags that are a special token and ordinary text behind it (`<|im_start|>user`):
/// no content can be taken for one, because none has special tokens.
fn tags(tokenizer: &Tokenizer) -> Result<Vec<Vec<u16>>, TokensError> {
    let turns = [Role::System, Role::User, Role::Assistant].map(|role| (role, ""));
    let pieces = tokenizer.template().pieces(&turns);
    let mut tags = Vec::new();
    for pair in pieces.windows(2) {
        if !matches!((pair[0].what, pair[1].what), (What::Special(_), What::Tag)) {
            continue;
        }
        let mut ids = Vec::new();
        for piece in pair {
            tokenizer.encoder().piece(piece, &mut ids)?;
        }
        tags.push(
            ids.into_iter()
                .filter_map(|id| u16::try_from(id).ok())
                .collect(),
        );
    }
    Ok(tags)
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

/// Perplexity of the targets when each token is as likely as it was frequent among the
/// targets of the training split (one added to each), or, without one, among themselves.
fn unigram_perplexity(train: Option<&Split>, tally: &Tally) -> f64 {
    let mut counts = tally.counts.clone();
    if let Some(train) = train {
        counts.fill(1);
        for document in train.documents() {
            let stretch = train.tokens(document);
            for (idx, id) in stretch.ids().enumerate() {
                counts[usize::from(id)] += u64::from(stretch.is_target(idx));
            }
        }
    }
    let total = counts.iter().sum::<u64>() as f64;
    let pairs = tally.counts.iter().zip(&counts).filter(|(n, _)| **n > 0);
    let nll: f64 = pairs
        .map(|(&n, &count)| n as f64 * (total / count as f64).ln())
        .sum();
    (nll / tally.targets.n as f64).exp()
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
    put("tokens", json!(tally.all.n));
    put("targets", json!(tally.targets.n));
    put("bytes", json!(tally.n_bytes));
    put("words", json!(tally.n_words));
    if tally.targets.n > 0 {
        let targets = tally.targets.json();
        for name in ["loss", "perplexity", "accuracy_top1", "accuracy_top5"] {
            put(name, targets[name].clone());
        }
        put("unigram_perplexity", json!(unigram));
    }
    if tally.n_bytes > 0 {
        let per_byte = tally.all.nll / tally.n_bytes as f64;
        put("bits_per_byte", json!(per_byte / std::f64::consts::LN_2));
        put("byte_perplexity", json!(per_byte.exp()));
    }
    if tally.n_words > 0 {
        put(
            "word_perplexity",
            json!((tally.all.nll / tally.n_words as f64).exp()),
        );
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
    use tinylm_model::{config::Precision, generate::Generator};
    use tinylm_pipeline::testing::StageTest;

    use super::*;
    use crate::{
        speak::fixture::{config, dialogue, tensors, write_model, write_shards},
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
        let report = evaluate(dir.path(), "{continuations: 2, max_tokens: 4}").unwrap();
        let mut generator =
            Generator::from_tensors(config(), &tensors(&config()), Precision::F32, 1).unwrap();
        let (mut all, mut targets, mut n_all, mut n_targets, mut n_bytes) = (0.0, 0.0, 0, 0, 0);
        for (_, ids, roles) in &documents {
            assert!(ids.len() <= 64, "each fits one window");
            generator.truncate(0);
            for place in 1..ids.len() {
                let logits = generator.feed(&ids[place - 1..place]).unwrap();
                let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
                let nll = sum.ln() - f64::from(logits[usize::from(ids[place])]);
                all += nll;
                n_all += 1;
                if roles[place] & 0x80 != 0 {
                    targets += nll;
                    n_targets += 1;
                }
            }
            n_bytes += ids.iter().filter(|&&id| id < 256).count();
        }
        assert_eq!(report["tokens"], n_all);
        assert_eq!(report["targets"], n_targets);
        close(&report["loss"], targets / f64::from(n_targets));
        close(
            &report["perplexity"],
            (targets / f64::from(n_targets)).exp(),
        );
        close(&report["bits_per_byte"], all / n_bytes as f64 / 2f64.ln());
        close(&report["byte_perplexity"], (all / n_bytes as f64).exp());
        let words = report["words"].as_f64().unwrap();
        close(&report["word_perplexity"], (all / words).exp());
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let dir = project(&documents());
        let report = evaluate(dir.path(), "{}").unwrap();
        let sum = |part: &str| -> u64 {
            report[part]
                .as_object()
                .unwrap()
                .values()
                .map(|sums| sums["tokens"].as_u64().unwrap())
                .sum()
        };
        assert_eq!(sum("by_source"), report["targets"].as_u64().unwrap());
        assert_eq!(sum("by_role"), report["tokens"].as_u64().unwrap());
        let sources: Vec<&String> = report["by_source"].as_object().unwrap().keys().collect();
        assert_eq!(sources, ["first", "second"]);
        assert_eq!(report["generated"]["continuations"], 3);
    }

    #[test]
    fn a_document_longer_than_the_context_is_scored_whole() {
        let ids: Vec<u16> = (0..150).map(|i| i * 31 % 256).collect();
        let roles = vec![0x80; ids.len()];
        let dir = project(&[(0, ids.clone(), roles)]);
        let report = evaluate(dir.path(), "{continuations: 0}").unwrap();
        assert_eq!(report["targets"], 149);
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
        assert_eq!(read.metrics.get("targets"), Some(16.0));
        assert_eq!(read.metrics.get("words"), Some(4.0));

        let mut corpus = Corpus::new(Template::Chatml);
        corpus.dialogue(&[(Role::User, "hi"), (Role::Assistant, "hello there")]);
        corpus.write(&dir.path().join("documents"));
        let read = test
            .input("documents", &dir.path().join("documents"))
            .run::<Evaluate>("{}")
            .unwrap();
        write_shards(&dir.path().join("shards"), "validation", &documents()[..1]);
        let shards = evaluate(dir.path(), "{}").unwrap();
        assert_eq!(read.metrics.get("loss"), shards["loss"].as_f64());
        assert_eq!(
            read.metrics.get("word_perplexity"),
            shards["word_perplexity"].as_f64()
        );
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
