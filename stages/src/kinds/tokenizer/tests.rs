//! Training, taking over, and what may not be.

use std::{fs, path::PathBuf};

use tempfile::TempDir;
use tinylm_pipeline::{
    Event,
    testing::{Outcome, StageTest},
};

mod jinja;

use super::*;
use crate::shared::{
    template::{Role, Spacing, written},
    testing::Corpus,
    tokens::Tokenizer,
};

const ALGORITHMS: [&str; 5] = [
    "byte-level-bpe",
    "sentencepiece-bpe",
    "unigram",
    "wordpiece",
    "word-level",
];

fn corpus() -> Corpus {
    let mut corpus = Corpus::new();
    corpus.more_words();
    corpus.dialogue(&[
        (Role::User, "How are you?"),
        (Role::Assistant, "I am well."),
    ]);
    corpus
}

fn with_template(template: Template, settings: &str) -> String {
    format!("{{template: {}, {settings}}}", template.name())
}

struct Fixture {
    dir: TempDir,
    n_artifacts: usize,
}

impl Fixture {
    fn new(corpus: &Corpus) -> Self {
        Self::of(std::slice::from_ref(corpus))
    }

    /// Several artifacts to learn from, each with row groups of its own.
    fn of(corpora: &[Corpus]) -> Self {
        let dir = TempDir::new().unwrap();
        for (idx, corpus) in corpora.iter().enumerate() {
            corpus.write(&dir.path().join(format!("documents-{idx}")));
        }
        let n_artifacts = corpora.len();
        Self { dir, n_artifacts }
    }

    fn run(&self, threads: usize, settings: &str) -> Result<Outcome, StageError> {
        let mut test = StageTest::new(self.dir.path());
        test.threads = threads;
        for idx in 0..self.n_artifacts {
            test = test.input(
                "documents",
                &self.dir.path().join(format!("documents-{idx}")),
            );
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let run = || test.run::<TokenizerStage>(settings);
        pool.build().unwrap().install(run)
    }

    fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.path().join("out-tokenizer").join(name)).unwrap()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.file(name)).unwrap()
    }

    fn tokenizer(&self) -> Tokenizer {
        Tokenizer::load(&self.dir.path().join("out-tokenizer")).unwrap()
    }
}

#[test]
fn special_tokens_are_one_id_each_behind_what_is_learnt() {
    for algorithm in ALGORITHMS {
        for template in Template::ALL {
            let fixture = Fixture::new(&corpus());
            fixture
                .run(
                    2,
                    &with_template(
                        template,
                        &format!("algorithm: {algorithm}, vocab_size: 350"),
                    ),
                )
                .unwrap();
            let tokenizer = fixture.tokenizer();
            let mut ids: Vec<u32> = template
                .specials()
                .iter()
                .map(|name| tokenizer.special(name).unwrap())
                .collect();
            let n_learnt = tokenizer.vocab_size() - ids.len();
            assert!(n_learnt <= 350, "{algorithm}: {n_learnt}");
            let expected: Vec<u32> = (n_learnt as u32..tokenizer.vocab_size() as u32).collect();
            ids.sort_unstable();
            assert_eq!(ids, expected, "{algorithm} {template:?}");
        }
    }
}

#[test]
fn any_number_of_threads_and_any_repetition_makes_the_same_bytes() {
    // More row groups than one thread takes at a time, with words of their own.
    let corpora: Vec<Corpus> = (0..7)
        .map(|idx| {
            let mut corpus = corpus();
            for n in 0..20 {
                corpus.text(&format!("part{idx} says {} and {}", n * idx, n + 31 * idx));
            }
            corpus
        })
        .collect();
    for algorithm in ALGORITHMS {
        let fixture = Fixture::of(&corpora);
        let settings = format!("{{algorithm: {algorithm}, vocab_size: 380}}");
        let files = [1, 2, 3].map(|threads| {
            fixture.run(threads, &settings).unwrap();
            ["tokenizer.json", "generation.json", "stats.json"].map(|name| fixture.file(name))
        });
        assert_eq!(files[0], files[1], "{algorithm}");
        assert_eq!(files[0], files[2], "{algorithm}");
    }
}

#[test]
fn no_template_changes_what_is_learnt() {
    let fixture = Fixture::new(&corpus());
    let words = |template| {
        let settings = with_template(template, "algorithm: word-level, min_frequency: 1");
        fixture.run(2, &settings).unwrap();
        fixture.json("tokenizer.json")["model"].clone()
    };
    assert_eq!(words(Template::Chatml), words(Template::StartEnd));
}

/// The word tokenizer of the `toiny` system: lower-cased `\w+`, most frequent first.
#[test]
fn words_are_lower_cased_counted_and_kept_in_order() {
    let mut corpus = Corpus::new();
    corpus.text("The cat, the DOG and the bird: and_so on!");
    let fixture = Fixture::new(&corpus);
    fixture
        .run(
            1,
            "{algorithm: word-level, min_frequency: 1, vocab_size: 6}",
        )
        .unwrap();
    let vocab = fixture.json("tokenizer.json")["model"]["vocab"].clone();
    insta::assert_snapshot!(vocab, @r#"{"<unk>":0,"the":1,"cat":2,"dog":3,"and":4,"bird":5}"#);
    let tokenizer = fixture.tokenizer();
    assert_eq!(tokenizer.encode("THE cat. Unheard!").unwrap(), [1, 2, 0]);
}

#[test]
fn unigram_learns_from_words_that_occur_once() {
    let mut corpus = Corpus::new();
    corpus.text("undone unmade untold unsaid unwell unseen");
    corpus.text("walking talking baking making taking waking");
    let fixture = Fixture::new(&corpus);
    fixture
        .run(1, "{algorithm: unigram, vocab_size: 330}")
        .unwrap();
    let pieces = fixture.json("tokenizer.json")["model"]["vocab"].to_string();
    assert!(pieces.contains("\"▁un\""), "{pieces}");
}

#[test]
fn fewer_tokens_than_were_asked_for_are_told() {
    let mut corpus = Corpus::new();
    corpus.text("The cat, the DOG and the bird: and_so on!");
    let fixture = Fixture::new(&corpus);
    let told = |settings: &str| {
        let events = fixture.run(1, settings).unwrap().events;
        let warnings = events.into_iter().filter_map(|event| match event {
            Event::Warning { message } => Some(message),
            _ => None,
        });
        warnings.collect::<Vec<String>>().join("; ")
    };
    assert_eq!(
        told("{algorithm: word-level, vocab_size: 6}"),
        "2 of 6 tokens are learnt: the documents hold no more; `min_frequency: 1` learns rarer ones too"
    );
    assert_eq!(
        told("{algorithm: word-level, min_frequency: 1, vocab_size: 6}"),
        ""
    );
}

#[test]
fn a_vocabulary_of_bytes_alone_is_a_vocabulary_of_characters() {
    let fixture = Fixture::new(&corpus());
    fixture.run(1, "{vocab_size: 256}").unwrap();
    let ids = fixture.tokenizer().encode("The cat.").unwrap();
    assert_eq!(ids.len(), "The cat.".len());
}

#[test]
fn generation_knows_where_to_stop() {
    let fixture = Fixture::new(&corpus());
    fixture
        .run(1, "{vocab_size: 255, special_tokens: [<mark>]}")
        .unwrap_err();
    fixture
        .run(1, "{vocab_size: 257, special_tokens: [<mark>]}")
        .unwrap();
    insta::assert_snapshot!(String::from_utf8(fixture.file("generation.json")).unwrap(), @r#"
    {
      "template": "chatml",
      "stop": [
        "<|im_end|>",
        "<|endoftext|>"
      ],
      "stop_ids": [
        258,
        259
      ],
      "bos": null,
      "bos_id": null,
      "eos": "<|endoftext|>",
      "eos_id": 259,
      "pad_id": null,
      "specials": {
        "<mark>": 260,
        "<|endoftext|>": 259,
        "<|im_end|>": 258,
        "<|im_start|>": 257
      }
    }
    "#);
    assert_eq!(
        fixture.file("chat_template.jinja"),
        Template::Chatml.jinja(Spacing::Nowhere).as_bytes()
    );
}

/// Other people's tools write what this one writes.
#[test]
fn the_jinja_template_writes_what_is_trained_on() {
    const SYSTEM: (Role, &str) = (Role::System, "Be {{ kind }}.");
    const HELLO: (Role, &str) = (Role::User, "Hello,\n'you' + <|im_end|>");
    const HI: (Role, &str) = (Role::Assistant, "Hi!");
    let dialogues: [&[(Role, &str)]; 5] = [
        &[HELLO, HI],
        &[SYSTEM, HELLO, HI, HELLO, HI],
        &[HELLO],
        &[SYSTEM, HI, HI],
        &[],
    ];
    for (template, algorithm) in Template::ALL
        .into_iter()
        .flat_map(|template| ALGORITHMS.map(|algorithm| (template, algorithm)))
    {
        let fixture = Fixture::new(&corpus());
        let settings = format!("algorithm: {algorithm}, vocab_size: 400");
        fixture.run(1, &with_template(template, &settings)).unwrap();
        let jinja = String::from_utf8(fixture.file("chat_template.jinja")).unwrap();
        let spacing = fixture.tokenizer().spacing();
        for turns in dialogues {
            let turns = || turns.iter().copied();
            let messages: Vec<(Role, &str)> = turns().collect();
            let pieces = template.pieces(turns(), spacing);
            let rendered = jinja::render(&jinja, &messages, false);
            assert_eq!(rendered, written(&pieces), "{algorithm} {template:?}");
            let prompt = written(&template.prompt(turns(), spacing));
            let rendered = jinja::render(&jinja, &messages, true);
            assert_eq!(rendered, prompt, "{algorithm} {template:?}");
        }
    }
}

#[test]
fn a_sample_is_a_share_of_the_documents() {
    let mut corpus = Corpus::new();
    for n in 0..3000 {
        corpus.text(&format!("document {n} {}", "with many words ".repeat(40)));
    }
    let fixture = Fixture::new(&corpus);
    fixture.run(2, "{vocab_size: 300, sample_mb: 1}").unwrap();
    let sample = fixture.json("stats.json")["sample"].clone();
    assert_eq!(sample["documents"], 3000);
    let bytes = sample["bytes_sampled"].as_u64().unwrap();
    assert!((800_000..1_300_000).contains(&bytes), "{bytes}");
}

#[test]
fn nothing_to_learn_from_is_an_error() {
    let mut wordless = Corpus::new();
    wordless.text("... !?");
    let complaints = [
        Fixture::new(&Corpus::new())
            .run(1, "{}")
            .unwrap_err()
            .message,
        Fixture::new(&wordless)
            .run(1, "{algorithm: word-level}")
            .unwrap_err()
            .message,
        Fixture::new(&wordless)
            .run(1, "{algorithm: unigram, min_frequency: 5}")
            .unwrap_err()
            .message,
        Fixture::new(&corpus())
            .run(1, "{vocab_size: 100}")
            .unwrap_err()
            .message,
        Fixture::new(&corpus())
            .run(1, "{vocab_size: 65536}")
            .unwrap_err()
            .message,
        Fixture::new(&corpus())
            .run(1, "{coverage: 0}")
            .unwrap_err()
            .message,
        StageTest::new(TempDir::new().unwrap().path())
            .run::<TokenizerStage>("{}")
            .unwrap_err()
            .message,
    ];
    insta::assert_snapshot!(complaints.join("\n"), @"
    the documents hold no words to learn from
    the documents hold no words to learn from
    no word occurs 5 times (`min_frequency`)
    `vocab_size` is 100, and 256 tokens are needed for the bytes alone
    `vocab_size`: shards hold ids up to 65535, so at most 65531 can be learnt
    `coverage`: must be above 0 and at most 1
    there are no documents to learn from
    ");
}

/// Writes a trained tokenizer's file somewhere else and takes it from there.
fn taken_over(fixture: &Fixture, settings: &str) -> (TempDir, Result<Outcome, StageError>) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("tokenizer.json");
    fs::write(&path, fixture.file("tokenizer.json")).unwrap();
    let test = StageTest::new(dir.path()).local_file("pretrained.path", &path);
    let outcome = test.run::<TokenizerStage>(settings);
    (dir, outcome)
}

#[test]
fn an_existing_tokenizer_keeps_its_ids_and_gets_more() {
    let fixture = Fixture::new(&corpus());
    fixture
        .run(1, "{vocab_size: 300, min_frequency: 1, template: plain}")
        .unwrap();
    let before = fixture.tokenizer();
    let settings = "{pretrained: {path: tokenizer.json}, template: chatml}";
    let (_dir, outcome) = taken_over(&fixture, settings);
    let after = Tokenizer::load(&outcome.unwrap().out).unwrap();
    assert_eq!(after.vocabulary()[..301], *before.vocabulary());
    // `<|endoftext|>` was there, as in GPT-2.
    assert_eq!(after.special("<|endoftext|>"), Some(300));
    assert_eq!(after.special("<|im_start|>"), Some(301));
    assert_eq!(after.special("<|im_end|>"), Some(302));
}

#[test]
fn a_file_that_changes_while_it_is_read_is_an_error() {
    let dir = TempDir::new().unwrap();
    let path: PathBuf = dir.path().join("tokenizer.json");
    fs::write(&path, "{}").unwrap();
    let test = StageTest::new(dir.path()).local_file("pretrained.path", &path);
    fs::write(&path, "{ }").unwrap();
    let error = test
        .run::<TokenizerStage>("{pretrained: {path: tokenizer.json}}")
        .unwrap_err();
    assert!(
        error.message.contains("changed while it was read"),
        "{error}"
    );
}

#[test]
fn a_vocabulary_that_shards_cannot_hold_is_refused() {
    let vocab: Map<String, Value> = (0..65_535).map(|n| (format!("w{n}"), json!(n))).collect();
    let json = |vocab: &Map<String, Value>| json!({"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"}});
    // One id is left: enough for `plain`, not for `chatml`.
    let ids = |template| add_specials(&mut json(&vocab), template, &[]).map(|g| g.eos_id);
    assert_eq!(ids(Template::Plain).unwrap(), Some(65_535));
    assert!(ids(Template::Chatml).unwrap_err().message.contains("65537"));
    // The largest number that can be written, to which nothing can be added.
    let largest = Fixture::new(&Corpus::new()).run(1, "{vocab_size: 18446744073709551615}");
    let said = largest.unwrap_err().message;
    assert!(said.contains("shards hold ids up to 65535"), "{said}");
}

#[test]
fn t5_gets_the_ids_of_the_forty_one_model() {
    let pieces: Vec<(String, f64)> = (0..32_100).map(|n| (format!("▁{n}"), 0.0)).collect();
    let mut json = json!({"model": {"type": "Unigram", "vocab": pieces, "unk_id": 2}});
    let generation = add_specials(&mut json, Template::StartEnd, &[]).unwrap();
    let names = ["<end>", "<start>", "<sep>", "<user>", "<bot>"];
    assert_eq!(
        names.map(|name| generation.specials[name]),
        [32_100, 32_101, 32_102, 32_103, 32_104]
    );
    assert_eq!(generation.stop_ids, [32_100]);
}

/// Vocabularies that others trained, where `TINYLM_REFERENCE_DATA` names a folder with them.
mod reference {
    use std::env;

    use super::*;
    use crate::skipped::skipped;

    fn data() -> Option<PathBuf> {
        let folder = env::var_os("TINYLM_REFERENCE_DATA").map(PathBuf::from);
        if folder.is_none() {
            skipped("TINYLM_REFERENCE_DATA names no folder");
        }
        folder
    }

    fn trained_on(text: &str, settings: &str) -> Fixture {
        let mut corpus = Corpus::new();
        corpus.text(text);
        let fixture = Fixture::new(&corpus);
        fixture.run(2, settings).unwrap();
        fixture
    }

    fn merges(fixture: &Fixture) -> Vec<String> {
        let merges = fixture.json("tokenizer.json")["model"]["merges"].clone();
        let pairs: Vec<[String; 2]> = serde_json::from_value(merges).unwrap();
        pairs.iter().map(|pair| pair.join(" ")).collect()
    }

    fn lines(path: PathBuf) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with("#version"));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn the_merges_of_the_released_trainer() {
        let Some(data) = data() else { return };
        let text = fs::read_to_string(data.join("tinyshakespeare/input.txt")).unwrap();
        let fixture = trained_on(&text, "{vocab_size: 8000, min_frequency: 2}");
        let folder = data.join("bytebpe_shakespeare_8000");
        assert_eq!(merges(&fixture), lines(folder.join("merges.txt")));
        let vocab: Value =
            serde_json::from_slice(&fs::read(folder.join("vocab.json")).unwrap()).unwrap();
        assert_eq!(fixture.json("tokenizer.json")["model"]["vocab"], vocab);
        assert_eq!(fixture.tokenizer().encode(&text).unwrap().len(), 318_045);
    }

    #[test]
    fn the_merges_of_the_description_of_gpt_2() {
        let Some(data) = data() else { return };
        let folder = data.join("bpe_train_reference");
        let text = fs::read_to_string(folder.join("corpus.en")).unwrap();
        let fixture = trained_on(&text, "{vocab_size: 499, min_frequency: 1, ties: greater}");
        assert_eq!(
            merges(&fixture),
            lines(folder.join("train-bpe-reference-merges.txt"))
        );
    }

    #[test]
    fn the_words_of_the_word_tokenizer() {
        let Some(data) = data() else { return };
        let text = fs::read_to_string(data.join("systems/toiny_tiny_corpus.txt")).unwrap();
        let golden = fs::read(data.join("systems/toiny_tokenizer_golden.json")).unwrap();
        let golden: Value = serde_json::from_slice(&golden).unwrap();
        let golden: Vec<String> = serde_json::from_value(golden["vocab"].clone()).unwrap();
        // There the ends of turns are tokens, and the beginnings are counted as words too.
        let text = text.replace("<|im_end|>", " ");
        let fixture = trained_on(
            &text,
            "{algorithm: word-level, vocab_size: 1000, min_frequency: 1}",
        );
        let tokenizer = fixture.tokenizer();
        let words: Vec<&str> = tokenizer
            .vocabulary()
            .iter()
            .map(|(word, _)| word.as_str())
            .collect();
        assert_eq!(words[1..words.len() - 1], golden[7..]);
    }

    #[test]
    fn a_sentencepiece_model_gives_the_ids_of_its_conversion() {
        let Some(data) = data() else { return };
        let take = |file: &str| {
            let path = data.join("t5_tokenizer").join(file);
            let dir = TempDir::new().unwrap();
            let test = StageTest::new(dir.path()).local_file("pretrained.path", &path);
            let settings = "{pretrained: {path: given}, template: start-end}";
            Tokenizer::load(&test.run::<TokenizerStage>(settings).unwrap().out).unwrap()
        };
        let (json, model) = (take("tokenizer.json"), take("spiece.model"));
        assert_eq!(json.special("<end>"), Some(32_100));
        assert_eq!(model.special("<end>"), Some(32_000));
        for book in ["pg11.txt", "botchan.txt"] {
            let text = fs::read_to_string(data.join("gutenberg").join(book)).unwrap();
            for line in text.lines() {
                assert_eq!(
                    json.encode(line).unwrap(),
                    model.encode(line).unwrap(),
                    "{line:?}"
                );
            }
        }
    }
}
