//! The tokenizer in a GGUF file's settings, as a `tokenizer.json`.
//!
//! Four of llama.cpp's sorts can be said exactly: byte-level BPE with the patterns of `gpt-2` and
//! `smollm`, SentencePiece's BPE and unigram, and WordPiece. The others are refused by name, since
//! nearly the same ids would make a model that nearly works.

use serde_json::{Map, Value, json};

use super::{
    json::{SPACE, added_token, bpe_json, byte_level_decoder, byte_level_pre_tokenizer},
    sentencepiece::{self, Manner},
};

const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// Returns the tokenizer of these settings, or why it has no form here.
pub(crate) fn to_json(settings: &Value) -> Result<Value, String> {
    let field = |name: &str| &settings[format!("tokenizer.ggml.{name}")];
    let tokens = texts(field("tokens")).ok_or("it has no `tokenizer.ggml.tokens`")?;
    let kinds = field("token_type").as_array();
    let kind = |idx: usize| {
        kinds
            .and_then(|kinds| kinds.get(idx)?.as_u64())
            .unwrap_or(1)
    };
    match field("model").as_str() {
        Some("gpt2") => {
            let pre = field("pre").as_str().unwrap_or("gpt-2");
            let merges = texts(field("merges")).ok_or("it has no `tokenizer.ggml.merges`")?;
            byte_level(&tokens, &kind, &merges, pre)
        }
        Some(model @ ("llama" | "t5")) => {
            let scores = field("scores").as_array();
            let scores = scores.filter(|scores| scores.len() == tokens.len());
            let scores = scores.ok_or("it has no score for each token")?;
            let scores: Option<Vec<f64>> = scores.iter().map(Value::as_f64).collect();
            let scores = scores.ok_or("one of its scores is not a number")?;
            let scores = scores.into_iter().map(|score| score as f32);
            let pieces = tokens.iter().zip(scores).enumerate();
            let pieces = pieces.map(|(idx, (text, score))| ((*text).to_owned(), score, kind(idx)));
            let flag = |name: &str, default| field(name).as_bool().unwrap_or(default);
            let table = field("precompiled_charsmap")
                .as_array()
                .into_iter()
                .flatten();
            let manner = Manner {
                is_unigram: model == "t5",
                add_dummy_prefix: flag("add_space_prefix", true),
                remove_extra_whitespaces: flag("remove_extra_whitespaces", false),
                // Some writers have them with a sign.
                charsmap: table
                    .filter_map(|byte| Some(byte.as_i64()? as u8))
                    .collect(),
            };
            sentencepiece::json_of(pieces, manner)
        }
        Some("bert") => {
            let lowercase = field("normalizer.lowercase").as_bool().unwrap_or(true);
            let strips = field("normalizer.strip_accents").as_bool();
            let normalizer = json!({
                "type": "BertNormalizer",
                "clean_text": true,
                "handle_chinese_chars": true,
                "strip_accents": strips.unwrap_or(lowercase),
                "lowercase": lowercase,
            });
            wordpiece(&tokens, &kind, normalizer)
        }
        other => Err(format!(
            "its tokenizer is of the sort `{}`, and `gpt2`, `llama`, `t5` and `bert` can be imported",
            other.unwrap_or("none")
        )),
    }
}

/// Returns llama2.c's pieces as a `tokenizer.json`: SentencePiece's, with spaces written as such.
pub(crate) fn of_llama2c(pieces: &[(Vec<u8>, f32)]) -> Result<Value, String> {
    let pieces = pieces.iter().enumerate().map(|(idx, (bytes, score))| {
        let text = String::from_utf8_lossy(bytes);
        let is_byte = text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
        let (text, kind) = match idx {
            0..=2 => (text.trim().to_owned(), if idx == 0 { 2 } else { CONTROL }),
            _ if is_byte => (text.into_owned(), 6),
            _ => (text.replace(' ', "▁"), 1),
        };
        (text, *score, kind)
    });
    let manner = Manner {
        add_dummy_prefix: true,
        ..Manner::default()
    };
    sentencepiece::json_of(pieces, manner)
}

fn byte_level(
    tokens: &[&str],
    kind: &dyn Fn(usize) -> u64,
    merges: &[&str],
    pre: &str,
) -> Result<Value, String> {
    let digits = json!({"type": "Digits", "individual_digits": true});
    let pre_tokenizer = match pre {
        "gpt-2" => byte_level_pre_tokenizer(),
        "smollm" => json!({
            "type": "Sequence",
            "pretokenizers": [digits, byte_level_pre_tokenizer()],
        }),
        other => {
            return Err(format!(
                "`tokenizer.ggml.pre` is `{other}`, and `gpt-2` and `smollm` can be imported"
            ));
        }
    };
    let (vocab, added) = vocabulary(tokens.iter().map(|token| (*token).to_owned()), kind)?;
    let pairs: Option<Vec<_>> = merges.iter().map(|merge| merge.split_once(' ')).collect();
    let pairs = pairs.ok_or("one of `tokenizer.ggml.merges` is not two tokens")?;
    Ok(json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer,
        "decoder": byte_level_decoder(),
        "model": bpe_json(vocab, json!(pairs), None),
    }))
}

/// What begins a word has the mark of a space there, and what goes on in one has none.
fn wordpiece(
    tokens: &[&str],
    kind: &dyn Fn(usize) -> u64,
    normalizer: Value,
) -> Result<Value, String> {
    let named =
        tokens
            .iter()
            .enumerate()
            .map(|(id, token)| match (kind(id), token.strip_prefix(SPACE)) {
                (1, Some(word)) => word.to_owned(),
                (1, None) => format!("##{token}"),
                _ => (*token).to_owned(),
            });
    let (vocab, added) = vocabulary(named, kind)?;
    let unknown = (0..tokens.len()).find(|id| kind(*id) == UNKNOWN);
    let unknown = unknown.ok_or("none of its tokens stands for unknown words")?;
    Ok(json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece",
            "unk_token": tokens[unknown],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    }))
}

/// The ids of tokens, and those of them that are added.
fn vocabulary(
    tokens: impl Iterator<Item = String>,
    kind: &dyn Fn(usize) -> u64,
) -> Result<(Map<String, Value>, Vec<Value>), String> {
    let (mut vocab, mut added) = (Map::new(), Vec::new());
    for (id, token) in tokens.enumerate() {
        if matches!(kind(id), UNKNOWN | CONTROL | USER_DEFINED) {
            added.push(added_token(id as u32, &token, kind(id) != USER_DEFINED));
        }
        if vocab.insert(token.clone(), json!(id)).is_some() {
            return Err(format!("the token `{token}` is there twice"));
        }
    }
    Ok((vocab, added))
}

fn texts(list: &Value) -> Option<Vec<&str>> {
    list.as_array()?.iter().map(Value::as_str).collect()
}
