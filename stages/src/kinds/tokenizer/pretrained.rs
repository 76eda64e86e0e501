//! An existing tokenizer, in any of the forms it is passed around in.

use std::fs;

use serde_json::{Map, Value, json};
use tinylm_pipeline::{At, LocalFile, LocalPath, StageError, StageIo, settings};

use super::{
    model::{bpe_json, byte_level_decoder, byte_level_pre_tokenizer},
    sentencepiece,
};
use crate::shared::hub::{Repo, fetch_repo_files};
use crate::shared::tokens::byte_level_char;

settings! {
    /// Where an existing tokenizer is.
    #[exclusive("hub", "path")]
    pub struct Pretrained {
        /// A repository on the hub, such as `t5-small` or `gpt2`.
        pub hub: Option<String> = None,
        /// Its branch, tag or commit.
        pub revision: Option<String> = None,
        /// A `tokenizer.json`, a SentencePiece `.model` (its own pieces alone: T5's hundred extra ids are in its `tokenizer.json`), or a folder with either or with `vocab.json` and `merges.txt`.
        pub path: Option<LocalPath> = None,
    }
}

/// A file of a tokenizer: what it is called, and its bytes.
pub(super) type NamedFile = (String, Vec<u8>);

impl Pretrained {
    /// Returns the repository that it names, and the files of it that may be of use.
    pub(super) fn repo(&self) -> Option<Repo> {
        let revision = self.revision.as_deref().unwrap_or("main");
        let files = ["tokenizer.json", "vocab.json", "merges.txt", "*.model"];
        Some(Repo::model(self.hub.as_deref()?, revision, &files))
    }

    /// Returns what the stage was given as a `tokenizer.json` in the released form.
    pub(super) fn read(&self, io: &StageIo) -> Result<Value, StageError> {
        match self.repo() {
            Some(repo) => assemble(&fetched(&repo, io)?),
            None => assemble(&local(io)?),
        }
    }
}

fn fetched(repo: &Repo, io: &StageIo) -> Result<Vec<NamedFile>, StageError> {
    let folder = io.checkpoints().join("hub");
    let mut named = Vec::new();
    for name in fetch_repo_files(repo, io, &folder)? {
        let path = folder.join(&name);
        named.push((name, fs::read(&path).at(&path)?));
    }
    Ok(named)
}

fn local(io: &StageIo) -> Result<Vec<NamedFile>, StageError> {
    let files = io.local_files("pretrained.path");
    // One file that is named by itself is meant, whatever it is called.
    let is_meant = |file: &&LocalFile| files.len() == 1 || is_of_use(&file.name);
    let wanted: Vec<&LocalFile> = files.iter().copied().filter(is_meant).collect();
    let mut named = Vec::new();
    for file in wanted {
        let bytes = fs::read(&file.path).at(&file.path)?;
        if blake3::hash(&bytes).to_string() != file.digest {
            let message = format!("`{}` changed while it was read", file.path.display());
            return Err(StageError::new(message).help("run the same command again"));
        }
        named.push((file.name.clone(), bytes));
    }
    Ok(named)
}

/// Whether a file of a tokenizer's folder can be the tokenizer or a part of it.
pub(super) fn is_of_use(name: &str) -> bool {
    let is_part = |end: &str| name.ends_with(end);
    is_part("tokenizer.json") || VOCAB.into_iter().chain(MERGES).any(is_part) || is_part(".model")
}

const VOCAB: [&str; 2] = ["vocab.json", "encoder.json"];
const MERGES: [&str; 2] = ["merges.txt", "vocab.bpe"];

/// Makes one `tokenizer.json` out of the best of `files`.
pub(super) fn assemble(files: &[NamedFile]) -> Result<Value, StageError> {
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
    Err(StageError::new("there is no tokenizer in what `pretrained` names")
        .help("it must hold `tokenizer.json`, or `vocab.json` and `merges.txt`, or a SentencePiece `.model`")
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
        there is no tokenizer in what `pretrained` names
        there is no tokenizer in what `pretrained` names
        `tokenizer.json` cannot be used as a tokenizer: EOF while parsing an object at line 1 column 1
        `tokenizer.json` cannot be used as a tokenizer: it has no `model`
        `vocab.json` cannot be used as a tokenizer: it has no token for the byte 0
        `merges.txt` cannot be used as a tokenizer: line 1 is not two tokens
        `merges.txt` cannot be used as a tokenizer: line 2 makes `ac`, which has no id
        `spiece.model` cannot be used as a tokenizer: it is not a SentencePiece model
        ");
    }
}
