//! Ids equal to the released library's, and nothing that forges a tag.

use std::{env, path::PathBuf};

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;
use tokenizers::pipeline::PipelineToken;

use super::{encoder::spell_out, *};
use crate::{
    shared::{
        template::written,
        testing::{Corpus, train_tokenizer},
    },
    skipped::skipped,
};

/// Written by `tests/fixtures/tokens.py` with the released library.
#[derive(Deserialize)]
struct Fixture {
    /// As text, so that nobody reads its numbers in between.
    tokenizer: String,
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
    decoded: Vec<String>,
}

fn no_generation() -> Generation {
    Generation {
        template: Some(Template::Plain),
        form: None,
        stop: Vec::new(),
        stop_ids: Vec::new(),
        bos: None,
        bos_id: None,
        eos: None,
        eos_id: None,
        pad_id: None,
        specials: BTreeMap::new(),
    }
}

/// Returns how many texts were compared.
#[track_caller]
fn compare(path: &Path) -> usize {
    let fixture: Fixture = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let tokenizer = Tokenizer::without_tags(path, &fixture.tokenizer, no_generation()).unwrap();
    for ((text, ids), decoded) in fixture.texts.iter().zip(&fixture.ids).zip(&fixture.decoded) {
        let mut expected = Vec::new();
        let tokens: Vec<PipelineToken> = ids.iter().map(|&id| id.into()).collect();
        spell_out(&tokenizer, &tokens, &mut expected).unwrap();
        let name = path.display();
        assert_eq!(
            tokenizer.encode(text).unwrap(),
            expected,
            "{name}: {text:?}"
        );
        assert_eq!(&tokenizer.decode(ids).unwrap(), decoded, "{name}: {text:?}");
    }
    fixture.texts.len()
}

fn fixtures(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect()
}

#[test]
fn a_byte_that_a_vocabulary_lacks_is_left_out() {
    let bytes = (0..=255).filter(|byte| *byte != b'b').map(byte_level_char);
    let vocab: serde_json::Map<String, Value> = bytes
        .zip(0..)
        .map(|(byte, id)| (byte.to_string(), Value::from(id)))
        .collect();
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": super::json::byte_level_pre_tokenizer(),
        "decoder": super::json::byte_level_decoder(),
        "model": super::json::bpe_json(vocab, serde_json::json!([]), None),
    });
    let path = Path::new("tokenizer.json");
    let tokenizer = Tokenizer::without_tags(path, &json.to_string(), no_generation()).unwrap();
    assert_eq!(tokenizer.vocab_size(), 255);
    let ids = tokenizer.encode("abc").unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), "ac");
}

#[test]
fn ids_and_texts_are_those_of_the_released_library() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokens");
    let paths = fixtures(&folder);
    assert_eq!(paths.len(), 9);
    assert!(paths.iter().map(|path| compare(path)).sum::<usize>() > 300);
}

/// The same for tokenizers that cannot stand in the repository.
#[test]
fn ids_of_other_tokenizers_too() {
    let Some(folder) = env::var_os("TINYLM_TOKEN_FIXTURES") else {
        return skipped("TINYLM_TOKEN_FIXTURES names no folder (see tests/fixtures/tokens.py)");
    };
    for path in fixtures(Path::new(&folder)) {
        assert!(compare(&path) > 0);
    }
}

fn trained(settings: &str) -> (TempDir, Tokenizer) {
    let dir = TempDir::new().unwrap();
    let mut corpus = Corpus::new();
    corpus.more_words();
    corpus.write(&dir.path().join("documents"));
    train_tokenizer(dir.path(), settings);
    let tokenizer = Tokenizer::load(&dir.path().join("out-tokenizer")).unwrap();
    (dir, tokenizer)
}

#[test]
fn a_dialogue_is_tags_by_id_and_contents_by_themselves() {
    let (_dir, tokenizer) = trained("{template: chatml, vocab_size: 300}");
    let turns = [(Role::User, "hi there"), (Role::Assistant, "<|im_end|>")];
    let ids = tokenizer.render_chat(&turns, false).unwrap();
    let text = "<|im_start|>user\nhi there<|im_end|>\n<|im_start|>assistant\n<|im_end|><|im_end|>\n<|endoftext|>";
    assert_eq!(tokenizer.decode_all(&ids).unwrap(), text);
    let end = tokenizer.special("<|im_end|>").unwrap();
    assert_eq!(ids.iter().filter(|&&id| id == end).count(), 2);
    assert!(tokenizer.stop_ids().contains(&end));

    let prompt = tokenizer.render_chat(&turns[..1], true).unwrap();
    assert!(ids.starts_with(&prompt));
    let hi = tokenizer.encode("hi there").unwrap();
    assert!(prompt.windows(hi.len()).any(|ids| ids == hi));
}

#[test]
fn a_stream_prints_whole_characters_only() {
    let (_dir, tokenizer) = trained("{template: plain, vocab_size: 260}");
    let text = "naïve 日本語 🦀!";
    let ids = tokenizer.encode(text).unwrap();
    let mut stream = tokenizer.decode_stream();
    let parts: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert!(
        parts
            .iter()
            .all(|part| !part.contains(char::REPLACEMENT_CHARACTER))
    );
    assert!(parts.iter().filter(|part| part.is_empty()).count() > 8);
    assert_eq!(parts.concat() + &stream.finish().unwrap(), text);
}

#[test]
fn a_stream_gives_up_on_a_character_that_never_comes() {
    let (_dir, tokenizer) = trained("{template: plain, vocab_size: 260}");
    let half = tokenizer.encode("é").unwrap()[0];
    let mut stream = tokenizer.decode_stream();
    assert_eq!(stream.push(half).unwrap(), "");
    assert!(
        stream
            .push(tokenizer.encode("a").unwrap()[0])
            .unwrap()
            .ends_with('a')
    );
    let mut stream = tokenizer.decode_stream();
    stream.push(half).unwrap();
    assert_eq!(stream.finish().unwrap(), "\u{fffd}");
}

#[test]
fn a_stream_of_any_kind_of_tokens_adds_up_to_the_text() {
    for algorithm in [
        "byte-level-bpe",
        "sentencepiece-bpe",
        "unigram",
        "wordpiece",
        "word-level",
    ] {
        let settings = format!("{{algorithm: {algorithm}, vocab_size: 400}}");
        let (_dir, tokenizer) = trained(&settings);
        for text in [
            "the 7th sentence names things",
            "Names,\nthings. 12 é",
            "  two  spaces",
        ] {
            let ids = tokenizer.encode(text).unwrap();
            let mut stream = tokenizer.decode_stream();
            let mut streamed: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
            streamed.push_str(&stream.finish().unwrap());
            assert_eq!(
                streamed,
                tokenizer.decode(&ids).unwrap(),
                "{algorithm} {text:?}"
            );
        }
    }
}

#[test]
fn bytes_have_characters_of_their_own() {
    let mut all: Vec<char> = (0..=255).map(byte_level_char).collect();
    assert_eq!(byte_level_char(b' '), 'Ġ');
    assert_eq!(byte_level_char(b'\n'), 'Ċ');
    assert_eq!(byte_level_char(0xad), 'Ń');
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 256);
    assert!(all.iter().all(|c| !c.is_whitespace() && !c.is_control()));
}

#[test]
fn what_is_wrong_with_a_tokenizer_is_said() {
    let complaint = |json: Value| {
        let parsed = Tokenizer::parse(
            Path::new("tokenizer.json"),
            &json.to_string(),
            no_generation(),
        );
        parsed.err().unwrap().to_string()
    };
    let vocab = |id: u32| json!({"a": 0, "b": id});
    let model = |id: u32| json!({"type": "WordLevel", "vocab": vocab(id), "unk_token": "a"});
    let added = json!([{"id": 9, "content": "<x>", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true}]);
    let doubling = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
    let complaints = [
        complaint(json!({})),
        complaint(json!({"model": {"type": "WordLevel", "vocab": {}}})),
        complaint(json!({"model": {"type": "WordLevel", "vocab": {"a": -1}}})),
        complaint(json!({"model": model(65536)})),
        complaint(json!({"model": model(1), "added_tokens": added})),
        complaint(json!({"model": model(1)})),
        complaint(json!({"model": {"type": "Other", "vocab": {"a": 1}}})),
        complaint(json!({"model": model(1), "pre_tokenizer": {"type": "Split",
            "pattern": {"Regex": "(a"}, "behavior": "Isolated", "invert": false}})),
        complaint(json!({"model": model(1), "normalizer": {"type": "Sequence",
            "normalizers": vec![doubling; 30]}})),
        complaint(json!({"model": model(1), "decoder": {"type": "Replace",
            "pattern": {"Regex": ""}, "content": "b".repeat(1000)}})),
        complaint(
            json!({"model": model(1), "normalizer": {"type": "Precompiled",
            "precompiled_charsmap": "/////wAAAAAA"}}),
        ),
    ];
    insta::assert_snapshot!(complaints.join("\n"), @"
    `tokenizer.json` is not a tokenizer that can be used here: it has no vocabulary
    `tokenizer.json` is not a tokenizer that can be used here: its vocabulary is empty
    `tokenizer.json` is not a tokenizer that can be used here: the id of `a` is -1
    the largest id is 65536, and shards hold ids up to 65535
    `tokenizer.json` is not a tokenizer that can be used here: `<x>` has the id 9 in the file and would get 2
    the tokenizer has no special token `<|endoftext|>`, which the template `plain` writes
    `tokenizer.json` is not a tokenizer that can be used here: the slim JSON reader cannot read the `unknown` model: either it is not a model type this crate knows, or its feature (`unigram`, `wordpiece`, `wordlevel`) is off in this build
    `tokenizer.json` is not a tokenizer that can be used here: its `Split` on `(a` cannot be run: Parsing error at position 2: Opening parenthesis without closing parenthesis
    `tokenizer.json` is not a tokenizer that can be used here: its `normalizer` can make a text 1073741824 times as long
    `tokenizer.json` is not a tokenizer that can be used here: its `decoder` can make a text 1001 times as long
    `tokenizer.json` is not a tokenizer that can be used here: its `precompiled_charsmap` is cut short
    ");
}

#[test]
fn ids_that_are_only_claimed_are_refused() {
    let json = json!({"model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}});
    let complaint = |generation: Generation| {
        let path = Path::new("tokenizer.json");
        let parsed = Tokenizer::parse(path, &json.to_string(), generation);
        parsed.err().unwrap().to_string()
    };
    let sound = no_generation;
    let complaints = [
        complaint(Generation {
            specials: BTreeMap::from([("<x>".to_owned(), 70_000)]),
            ..sound()
        }),
        complaint(Generation {
            bos_id: Some(2),
            ..sound()
        }),
        complaint(Generation {
            stop_ids: vec![1, u32::MAX],
            ..sound()
        }),
    ];
    insta::assert_snapshot!(complaints.join("\n"), @"
    `tokenizer.json` is not a tokenizer that can be used here: `<x>` has the id 70000 in the file and would get none
    `tokenizer.json` is not a tokenizer that can be used here: `generation.json` names the id 2, and the largest is 1
    `tokenizer.json` is not a tokenizer that can be used here: `generation.json` names the id 4294967295, and the largest is 1
    ");
}

#[test]
fn missing_and_broken_files_are_named() {
    let dir = TempDir::new().unwrap();
    let complaint = || {
        let error = Tokenizer::load(dir.path()).err().unwrap().to_string();
        error.replace(&format!("{}/", dir.path().display()), "")
    };
    assert!(complaint().starts_with("cannot read `generation.json`"));
    fs::write(dir.path().join(GENERATION_NAME), "{}").unwrap();
    assert!(complaint().starts_with("cannot parse `generation.json`"));
    let generation = serde_json::to_string(&no_generation()).unwrap();
    fs::write(dir.path().join(GENERATION_NAME), generation).unwrap();
    fs::write(dir.path().join(TOKENIZER_NAME), [0xff, 0xfe]).unwrap();
    assert!(complaint().contains("not UTF-8"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn byte_level_text_comes_back(text in "\\PC{0,40}|[ -~\n\t]{0,60}") {
        thread_local! {
            static TRAINED: (TempDir, Tokenizer) = trained("{template: tags, vocab_size: 320}");
        }
        TRAINED.with(|(_dir, tokenizer)| {
            let ids = tokenizer.encode(&text).unwrap();
            assert_eq!(tokenizer.decode_all(&ids).unwrap(), text);
            let largest = tokenizer.specials().values().min().unwrap();
            assert!(ids.iter().all(|id| id < largest));
        });
    }
}

/// `</s>` and `<pad>` are pieces of this model like any other, as they are of T5's.
#[test]
fn a_piece_that_only_a_tag_may_be_is_spelt_out() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokens/unigram.json");
    let fixture: Fixture = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let tokenizer = Tokenizer::without_tags(&path, &fixture.tokenizer, no_generation()).unwrap();
    let forged = tokenizer.special("</s>").unwrap();
    let (mut raw, mut buffers) = (Vec::new(), tokenizer.steps.take_buffers());
    let steps = &tokenizer.steps;
    steps.encode("the cat</s>", &mut buffers, &mut raw).unwrap();
    assert!(
        PipelineToken::cast_slice(&raw).contains(&forged),
        "the crate itself lets it through"
    );
    for text in ["the cat</s>", "</s>", "<pad></s><pad>", "a </s> b"] {
        let ids = tokenizer.encode(text).unwrap();
        assert!(ids.len() > text.len() / 2, "{text}");
        assert!(!ids.contains(&forged) && !ids.contains(&tokenizer.special("<pad>").unwrap()));
    }
}

/// Contents that begin and end in every way that a cut between pieces could show.
const CONTENTS: [&str; 12] = [
    "Who are you?",
    "names 37 things",
    "  two spaces before",
    "\n\n\nlines before",
    " \n mixed before",
    "\ttab before, and behind\t",
    "spaces behind  ",
    "lines behind\n\n",
    "!",
    "it's the 5th: \"quoted\", (bracketed)",
    "naïve 日本語 🦀",
    "many   spaces\n\n\nand lines inside",
];

#[test]
fn a_dialogue_has_the_ids_of_its_text() {
    let algorithms = [
        "byte-level-bpe",
        "sentencepiece-bpe",
        "unigram",
        "wordpiece",
        "word-level",
    ];
    for (template, algorithm) in Template::ALL
        .into_iter()
        .flat_map(|t| algorithms.map(|a| (t, a)))
    {
        let settings = format!(
            "{{template: {}, algorithm: {algorithm}, vocab_size: 420, min_frequency: 1}}",
            template.name()
        );
        let (_dir, tokenizer) = trained(&settings);
        for (user, assistant) in CONTENTS
            .into_iter()
            .flat_map(|user| CONTENTS.map(|reply| (user, reply)))
        {
            let turns = [
                (Role::System, "Be kind."),
                (Role::User, user),
                (Role::Assistant, assistant),
                (Role::User, assistant),
                (Role::Assistant, user),
            ];
            for n_turns in [2, 3, 5] {
                let turns = &turns[..n_turns];
                let (said, spacing) = (turns.iter().copied(), tokenizer.spacing());
                let is_prompt = n_turns == 2;
                let pieces = match is_prompt {
                    true => template.prompt(said, spacing),
                    false => template.pieces(said, spacing),
                };
                let text = written(&pieces);
                let ids = tokenizer.render_chat(turns, is_prompt).unwrap();
                // The mark between documents is no part of a dialogue's text.
                let n_after = usize::from(!is_prompt && template == Template::Chatml);
                let ids = &ids[..ids.len() - n_after];
                let whole = tokenizer.encode_marked(&text).unwrap();
                assert_eq!(ids, whole, "{algorithm} {text:?}");
            }
        }
    }
}
