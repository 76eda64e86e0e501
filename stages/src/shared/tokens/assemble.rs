//! An existing tokenizer, in any of the forms it is passed around in.

use serde_json::{Map, Value, json};
use tinylm_pipeline::StageError;

use super::{
    byte_level_char,
    json::{bpe_json, byte_level_decoder, byte_level_pre_tokenizer},
    sentencepiece,
};

/// A file of a tokenizer: what it is called, and its bytes.
pub(crate) type NamedFile = (String, Vec<u8>);

/// Whether a file of a tokenizer's folder can be the tokenizer or a part of it.
pub(crate) fn is_of_use(name: &str) -> bool {
    let is_part = |end: &str| name.ends_with(end);
    is_part("tokenizer.json") || VOCAB.into_iter().chain(MERGES).any(is_part) || is_part(".model")
}

const VOCAB: [&str; 2] = ["vocab.json", "encoder.json"];
const MERGES: [&str; 2] = ["merges.txt", "vocab.bpe"];

/// Makes one `tokenizer.json` out of the best of `files`.
pub(crate) fn assemble(files: &[NamedFile]) -> Result<Value, StageError> {
    let ending = |ends: &[&str]| {
        let found = files
            .iter()
            .find(|(name, _)| ends.iter().any(|end| name.ends_with(end)));
        found.map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    };
    if let Some((name, bytes)) = ending(&["tokenizer.json"]).or_else(|| only_json(files)) {
        return parse(name, bytes);
    }
    if let (Some(vocab), Some(merges)) = (ending(&VOCAB), ending(&MERGES)) {
        return byte_level(vocab, merges);
    }
    if let Some((name, bytes)) = ending(&[".model"]) {
        return sentencepiece::to_json(bytes).map_err(|reason| bad(name, &reason));
    }
    Err(StageError::new("there is no tokenizer among the files")
        .help("one of them must be `tokenizer.json`, or `vocab.json` and `merges.txt`, or a SentencePiece `.model`")
        .is_final())
}

/// A lone JSON file is a tokenizer whatever it is called.
fn only_json(files: &[NamedFile]) -> Option<(&str, &[u8])> {
    match files {
        [(name, bytes)] if name.ends_with(".json") => Some((name, bytes)),
        _ => None,
    }
}

fn bad(name: &str, reason: &str) -> StageError {
    StageError::new(format!("`{name}` cannot be used as a tokenizer: {reason}")).is_final()
}

fn parse(name: &str, bytes: &[u8]) -> Result<Value, StageError> {
    let json: Value =
        serde_json::from_slice(bytes).map_err(|error| bad(name, &error.to_string()))?;
    if !json["model"].is_object() {
        return Err(bad(name, "it has no `model`"));
    }
    Ok(json)
}

/// GPT-2's own two files, under any of the names they go by.
fn byte_level(vocab: (&str, &[u8]), merges: (&str, &[u8])) -> Result<Value, StageError> {
    let (name, bytes) = vocab;
    let vocab: Map<String, Value> =
        serde_json::from_slice(bytes).map_err(|error| bad(name, &error.to_string()))?;
    let missing = (0..=255).find(|&byte| !vocab.contains_key(&byte_level_char(byte).to_string()));
    if let Some(byte) = missing {
        return Err(bad(name, &format!("it has no token for the byte {byte}")));
    }
    let (name, bytes) = merges;
    let text = std::str::from_utf8(bytes).map_err(|_| bad(name, "it is not UTF-8"))?;
    let mut pairs = Vec::new();
    for (idx, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with("#version") {
            continue;
        }
        let pair = line
            .split_once(' ')
            .filter(|(_, right)| !right.contains(' '));
        let Some((left, right)) = pair else {
            return Err(bad(name, &format!("line {} is not two tokens", idx + 1)));
        };
        let joined = format!("{left}{right}");
        for token in [left, right, &joined] {
            if !vocab.contains_key(token) {
                let reason = format!("line {} makes `{token}`, which has no id", idx + 1);
                return Err(bad(name, &reason));
            }
        }
        pairs.push([left, right]);
    }
    Ok(json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": byte_level_pre_tokenizer(),
        "decoder": byte_level_decoder(),
        "model": bpe_json(vocab, json!(pairs), None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(files: &[(&str, &str)]) -> Vec<NamedFile> {
        let files = files.iter();
        files
            .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))
            .collect()
    }

    /// The 256 bytes and one merge.
    fn vocab() -> String {
        let mut vocab: Map<String, Value> = (0..=255_u8)
            .map(|byte| (byte_level_char(byte).to_string(), Value::from(byte)))
            .collect();
        vocab.insert("ab".to_owned(), Value::from(256));
        Value::Object(vocab).to_string()
    }

    #[test]
    fn two_files_of_any_name_make_a_byte_level_tokenizer() {
        let vocab = vocab();
        for names in [
            ["vocab.json", "merges.txt"],
            ["my_encoder.json", "vocab.bpe"],
        ] {
            let files = named(&[
                (names[0], vocab.as_str()),
                (names[1], "#version: 0.2\na b\n"),
            ]);
            let json = assemble(&files).unwrap();
            assert_eq!(json["model"]["merges"], json!([["a", "b"]]));
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let vocab = vocab();
        let complaint = |files: &[(&str, &str)]| assemble(&named(files)).unwrap_err().message;
        let complaints = [
            complaint(&[]),
            complaint(&[("readme.md", "hello")]),
            complaint(&[("tokenizer.json", "{")]),
            complaint(&[("tokenizer.json", "{}")]),
            complaint(&[("vocab.json", "{\"a\": 0}"), ("merges.txt", "")]),
            complaint(&[("vocab.json", &vocab), ("merges.txt", "a b c")]),
            complaint(&[("vocab.json", &vocab), ("merges.txt", "\na c")]),
            complaint(&[("spiece.model", "not a model")]),
        ];
        insta::assert_snapshot!(complaints.join("\n"), @"
        there is no tokenizer among the files
        there is no tokenizer among the files
        `tokenizer.json` cannot be used as a tokenizer: EOF while parsing an object at line 1 column 1
        `tokenizer.json` cannot be used as a tokenizer: it has no `model`
        `vocab.json` cannot be used as a tokenizer: it has no token for the byte 0
        `merges.txt` cannot be used as a tokenizer: line 1 is not two tokens
        `merges.txt` cannot be used as a tokenizer: line 2 makes `ac`, which has no id
        `spiece.model` cannot be used as a tokenizer: it is not a SentencePiece model
        ");
    }
}
