//! What can be said of a tokenizer in llama.cpp's words.

use std::collections::HashMap;

use serde_json::Value;

use crate::shared::tokens::json::SPACE;

/// A tokenizer in llama.cpp's words.
pub(super) struct Said {
    pub(super) model: &'static str,
    pub(super) pre: &'static str,
    pub(super) merges: Option<Vec<String>>,
    /// By token.
    pub(super) scores: Option<HashMap<String, f32>>,
    pub(super) add_space_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
    pub(super) charsmap: Option<Vec<u8>>,
    pub(super) words: Option<Words>,
}

/// How WordPiece takes words.
pub(super) struct Words {
    /// Stands before a token that goes on in a word.
    pub(super) prefix: String,
    pub(super) lowercase: bool,
    pub(super) strip_accents: bool,
}

impl Words {
    /// What begins a word has the mark of a space there, and what goes on in one has none.
    pub(super) fn there(&self, token: &str) -> String {
        match token.strip_prefix(&self.prefix) {
            Some(rest) if !rest.is_empty() => rest.to_owned(),
            _ => format!("{SPACE}{token}"),
        }
    }
}

/// Whether a space stands before every text.
pub(super) fn prefix(json: &Value) -> Result<bool, String> {
    let step = &json["pre_tokenizer"];
    match step["prepend_scheme"].as_str() {
        Some("always") if step["type"] == "Metaspace" => Ok(true),
        Some("never") if step["type"] == "Metaspace" => Ok(false),
        _ => Err("its `pre_tokenizer` marks spaces in another way".to_owned()),
    }
}
