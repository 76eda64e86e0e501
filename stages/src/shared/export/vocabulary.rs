//! A tokenizer as the settings of a GGUF file.
//!
//! llama.cpp has a few tokenizers of its own and runs no pipeline of steps, so that a tokenizer is
//! either one of them or cannot be said. Nearly the same ids would make a model that nearly works:
//! what cannot be said is refused by the part of `tokenizer.json` that is in the way.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;
use tinylm_exchange::gguf::Field;
use tinylm_pipeline::StageError;

use self::said::{Said, Words, prefix};
use crate::shared::tokens::Tokenizer;

mod said;
mod unigram;

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// Returns the settings for a tokenizer, whose file says `json`; `template` is its chat template.
pub(super) fn fields(
    json: &Value,
    tokenizer: &Tokenizer,
    template: Option<String>,
) -> Result<Vec<(String, Field)>, StageError> {
    let said = said(json, unigram::has_glued_words(tokenizer)).map_err(|reason| {
        StageError::new(format!("llama.cpp has no tokenizer like this one: {reason}"))
            .help("`byte-level-bpe`, `sentencepiece-bpe`, `unigram` and `wordpiece` have a form there; `--to hf` takes every one")
            .is_final()
    })?;
    let mut tokens = tokens(tokenizer);
    let kinds = kinds(json, tokenizer, &tokens, said.model);
    if let Some(words) = &said.words {
        let ordinary = tokens.iter_mut().zip(&kinds);
        let ordinary = ordinary.filter(|(_, kind)| **kind == NORMAL);
        ordinary.for_each(|(token, _)| *token = words.there(token));
    }
    let mut fields = Vec::new();
    let mut put = |name: &str, field: Field| fields.push((format!("tokenizer.ggml.{name}"), field));
    put("model", Field::text(said.model));
    put("pre", Field::text(said.pre));
    if let Some(merges) = said.merges {
        put("merges", Field::Texts(merges));
    }
    if let Some(scores) = said.scores {
        let score = |token: &String| scores.get(token).copied().unwrap_or(0.0);
        put("scores", Field::F32s(tokens.iter().map(score).collect()));
    }
    put("tokens", Field::Texts(tokens));
    put("token_type", Field::I32s(kinds));
    for (name, id) in ids(tokenizer) {
        put(&format!("{name}_token_id"), Field::U32(id));
    }
    // The template writes what a dialogue begins and ends with.
    put("add_bos_token", Field::Bool(false));
    put("add_eos_token", Field::Bool(false));
    if let Some(words) = said.words {
        put("add_sep_token", Field::Bool(false));
        put("normalizer.lowercase", Field::Bool(words.lowercase));
        put("normalizer.strip_accents", Field::Bool(words.strip_accents));
    }
    put("add_space_prefix", Field::Bool(said.add_space_prefix));
    put(
        "remove_extra_whitespaces",
        Field::Bool(said.remove_extra_whitespaces),
    );
    if let Some(charsmap) = said.charsmap {
        put("precompiled_charsmap", Field::Bytes(charsmap));
    }
    if let Some(template) = template {
        fields.push(("tokenizer.chat_template".to_owned(), Field::Text(template)));
    }
    Ok(fields)
}

/// Every id has a token; those that no file names are made up.
fn tokens(tokenizer: &Tokenizer) -> Vec<String> {
    let mut tokens: Vec<String> = (0..tokenizer.vocab_size())
        .map(|id| format!("[PAD{id}]"))
        .collect();
    for (token, id) in tokenizer.vocabulary() {
        tokens[*id as usize].clone_from(token);
    }
    tokens
}

fn kinds(json: &Value, tokenizer: &Tokenizer, tokens: &[String], model: &str) -> Vec<i32> {
    let named: BTreeSet<u32> = tokenizer.vocabulary().iter().map(|(_, id)| *id).collect();
    let specials: BTreeSet<u32> = tokenizer.specials().values().copied().collect();
    let added = json["added_tokens"].as_array().into_iter().flatten();
    let added: BTreeSet<u64> = added.filter_map(|token| token["id"].as_u64()).collect();
    let is_byte = |token: &str| {
        model != "gpt2" && token.len() == 6 && token.starts_with("<0x") && token.ends_with('>')
    };
    let kind = |(token, id): (&String, u32)| match () {
        () if tokenizer.unknown_id() == Some(id) => UNKNOWN,
        () if specials.contains(&id) => CONTROL,
        () if added.contains(&u64::from(id)) => USER_DEFINED,
        () if !named.contains(&id) => UNUSED,
        () if is_byte(token) => BYTE,
        () => NORMAL,
    };
    tokens.iter().zip(0..).map(kind).collect()
}

/// Ids that llama.cpp would take from elsewhere if they were not named. What ends a turn and what
/// ends a text both end an answer.
fn ids(tokenizer: &Tokenizer) -> Vec<(&'static str, u32)> {
    let generation = tokenizer.generation();
    let end_of_text = generation
        .eos_id
        .or_else(|| tokenizer.stop_ids().first().copied());
    let mut stops = tokenizer.stop_ids().iter().copied();
    let end_of_turn = stops.find(|id| Some(*id) != end_of_text).or(end_of_text);
    let named = [
        ("bos", generation.bos_id.or(end_of_text)),
        ("eos", end_of_text),
        ("eot", end_of_turn),
        ("unknown", tokenizer.unknown_id()),
        ("padding", generation.pad_id.or(end_of_text)),
        // llama.cpp spells it so.
        ("seperator", end_of_text),
    ];
    let named = named.into_iter();
    named.filter_map(|(name, id)| Some((name, id?))).collect()
}

fn said(json: &Value, has_glued_words: bool) -> Result<Said, String> {
    match json["model"]["type"].as_str() {
        Some("BPE") if json["pre_tokenizer"]["type"] == "Metaspace" => pieces(json),
        Some("BPE") => bytes(json),
        Some("Unigram") => unigram::said(json, has_glued_words),
        Some("WordPiece") => wordpiece(json),
        other => Err(format!("its `model` is `{}`", other.unwrap_or("none"))),
    }
}

/// BPE over bytes, with one of two patterns that words are cut with.
fn bytes(json: &Value) -> Result<Said, String> {
    if !json["normalizer"].is_null() {
        return Err("its `normalizer` changes texts".to_owned());
    }
    let is_level = |step: &Value| {
        step["type"] == "ByteLevel" && step["use_regex"] == true && step["add_prefix_space"] != true
    };
    let pre_tokenizer = &json["pre_tokenizer"];
    let steps: Vec<&Value> = pre_tokenizer["pretokenizers"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    let pre = match steps.as_slice() {
        [] if is_level(pre_tokenizer) => "gpt-2",
        [digits, level]
            if digits["type"] == "Digits"
                && digits["individual_digits"] == true
                && is_level(level) =>
        {
            "smollm"
        }
        _ => {
            return Err(
                "its `pre_tokenizer` has a pattern that llama.cpp has no name for".to_owned(),
            );
        }
    };
    let merges = merges(json)?;
    let merges = merges.iter().map(|[a, b]| format!("{a} {b}"));
    Ok(Said {
        model: "gpt2",
        pre,
        merges: Some(merges.collect()),
        scores: None,
        add_space_prefix: false,
        remove_extra_whitespaces: false,
        charsmap: None,
        words: None,
    })
}

/// BPE over pieces: llama.cpp merges by the score of the result, so that the first merge to make a
/// token decides its score.
fn pieces(json: &Value) -> Result<Said, String> {
    if !json["normalizer"].is_null() {
        return Err("its `normalizer` changes texts".to_owned());
    }
    let mut scores = HashMap::new();
    for ([a, b], rank) in merges(json)?.into_iter().zip(1_u32..) {
        scores.entry(a + &b).or_insert(-(rank as f32));
    }
    Ok(Said {
        model: "llama",
        pre: "default",
        merges: None,
        scores: Some(scores),
        add_space_prefix: prefix(json)?,
        remove_extra_whitespaces: false,
        charsmap: None,
        words: None,
    })
}

fn wordpiece(json: &Value) -> Result<Said, String> {
    let normalizer = &json["normalizer"];
    if normalizer["type"] != "BertNormalizer" || normalizer["handle_chinese_chars"] != true {
        return Err("its `normalizer` is not BERT's".to_owned());
    }
    if json["pre_tokenizer"]["type"] != "BertPreTokenizer" {
        return Err("its `pre_tokenizer` is not BERT's".to_owned());
    }
    let prefix = json["model"]["continuing_subword_prefix"].as_str();
    let lowercase = normalizer["lowercase"] == true;
    let strips = normalizer["strip_accents"].as_bool();
    Ok(Said {
        model: "bert",
        pre: "default",
        merges: None,
        scores: None,
        add_space_prefix: false,
        remove_extra_whitespaces: false,
        charsmap: None,
        words: Some(Words {
            prefix: prefix.unwrap_or("##").to_owned(),
            lowercase,
            strip_accents: strips.unwrap_or(lowercase),
        }),
    })
}

fn merges(json: &Value) -> Result<Vec<[String; 2]>, String> {
    let pair = |merge: &Value| match merge {
        Value::String(text) => {
            let (a, b) = text.split_once(' ')?;
            Some([a.to_owned(), b.to_owned()])
        }
        pair => Some([pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned()]),
    };
    let merges = json["model"]["merges"].as_array().into_iter().flatten();
    let merges: Option<Vec<_>> = merges.map(pair).collect();
    merges.ok_or_else(|| "one of its merges is not two tokens".to_owned())
}
