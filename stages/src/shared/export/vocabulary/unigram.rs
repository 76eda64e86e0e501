//! Unigram in llama.cpp's words.
//!
//! It has two flags for spaces where `tokenizer.json` has a list of steps, so that a list is either one of
//! the four combinations or refused.

use std::collections::HashMap;

use serde_json::Value;

use super::said::{Said, prefix};
use crate::shared::{
    base64,
    template::Role,
    tokens::{Tokenizer, json::SPACE},
};

/// Whether the template has a word straight behind a special token, as ChatML has.
pub(super) fn has_glued_words(tokenizer: &Tokenizer) -> bool {
    let is_glued = |text: &str| {
        let behind = |name: &String| Some(text.split_once(name.as_str())?.1);
        let mut behind = tokenizer.specials().keys().filter_map(behind);
        behind.any(|text| text.starts_with(char::is_alphanumeric))
    };
    tokenizer.knows_turns()
        && Role::ALL.into_iter().any(|role| {
            let (open, close) = tokenizer.form().around(role, tokenizer.spacing());
            is_glued(&open) || is_glued(&close)
        })
}

/// Returns the tokenizer of `json` in llama.cpp's words.
pub(super) fn said(json: &Value, has_glued_words: bool) -> Result<Said, String> {
    let Spaces {
        charsmap,
        are_merged,
    } = Spaces::of(&json["normalizer"])?;
    let entries = json["model"]["vocab"]
        .as_array()
        .ok_or("it has no scores")?;
    let score = |entry: &Value| Some((entry[0].as_str()?.to_owned(), entry[1].as_f64()? as f32));
    let scores: Option<HashMap<String, f32>> = entries.iter().map(score).collect();
    Ok(Said {
        model: "t5",
        pre: "default",
        merges: None,
        scores: Some(scores.ok_or("one of its scores is no number")?),
        add_space_prefix: match json["pre_tokenizer"]["prepend_scheme"] == "first" {
            true => first_prefix(are_merged, has_glued_words)?,
            false => prefix(json)?,
        },
        remove_extra_whitespaces: are_merged,
        charsmap,
        words: None,
    })
}

/// What a unigram's normalizer does to characters and to spaces.
struct Spaces {
    charsmap: Option<Vec<u8>>,
    /// Several in a row are one, and those behind a text are none.
    are_merged: bool,
}

impl Spaces {
    fn of(normalizer: &Value) -> Result<Self, String> {
        let members = match normalizer["normalizers"].as_array() {
            Some(members) => members.iter().collect(),
            None if normalizer.is_null() => Vec::new(),
            None => vec![normalizer],
        };
        let (mut charsmap, mut are_merged, mut are_cut) = (None, false, false);
        for member in members {
            match member["type"].as_str() {
                Some("Precompiled") => {
                    let text = member["precompiled_charsmap"].as_str().unwrap_or_default();
                    charsmap =
                        Some(base64::decoded(text).ok_or("its table of characters is no base64")?);
                }
                // How a SentencePiece file's flag is said there: by us, and by T5's file.
                Some("Replace") if ["", " "].iter().any(|text| member["content"] == *text) => {
                    (are_merged, are_cut) = (true, true);
                }
                Some("Replace") if is_run_of_spaces(member) => are_merged = true,
                Some("Strip") if member["strip_left"] == false => {
                    are_cut = member["strip_right"] == true;
                }
                _ => return Err("its `normalizer` changes texts".to_owned()),
            }
        }
        match are_merged == are_cut {
            true => Ok(Self {
                charsmap,
                are_merged,
            }),
            false => Err("its `normalizer` merges spaces within a text or behind it, and llama.cpp does both or neither".to_owned()),
        }
    }
}

fn is_run_of_spaces(replace: &Value) -> bool {
    let pattern = replace["pattern"]["Regex"].as_str();
    replace["content"] == SPACE.to_string() && matches!(pattern, Some(" {2,}" | " +"))
}

/// llama.cpp puts a space behind special tokens too. Where spaces are merged, it is one with the
/// template's own.
fn first_prefix(are_merged: bool, has_glued_words: bool) -> Result<bool, String> {
    match (are_merged, has_glued_words) {
        (true, false) => Ok(true),
        (true, true) => Err("its template writes words straight behind special tokens, where llama.cpp puts a space and `prepend_scheme: first` none (`start-end`, `tags` and `plain` do not)".to_owned()),
        (false, _) => Err("its `pre_tokenizer` marks spaces in another way".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// T5's own file, but for its table of characters.
    fn t5(steps: Value) -> Value {
        json!({
            "normalizer": {"type": "Sequence", "normalizers": steps},
            "pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"},
            "model": {"type": "Unigram", "vocab": [["<unk>", 0.0], ["▁a", -1.5]]},
        })
    }

    fn strip() -> Value {
        json!({"type": "Strip", "strip_left": false, "strip_right": true})
    }

    fn merge() -> Value {
        json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"})
    }

    #[test]
    fn t5s_steps_are_the_flags_that_merge_spaces_and_put_one_in_front() {
        let map = json!({"type": "Precompiled", "precompiled_charsmap": "AQID"});
        let said = said(&t5(json!([map, strip(), merge()])), false).unwrap();
        assert!(said.add_space_prefix && said.remove_extra_whitespaces);
        assert_eq!(said.charsmap, Some(vec![1, 2, 3]));
        assert_eq!(said.scores.unwrap()["▁a"], -1.5);
    }

    #[test]
    fn a_prefix_before_the_first_word_alone_is_refused_where_words_stand_behind_specials() {
        let json = t5(json!([strip(), merge()]));
        assert!(said(&json, true).err().unwrap().contains("straight behind"));
        let apart = t5(json!([]));
        assert!(
            said(&apart, false)
                .err()
                .unwrap()
                .contains("in another way")
        );
    }

    #[test]
    fn spaces_are_merged_everywhere_or_nowhere() {
        for steps in [json!([strip()]), json!([merge()])] {
            let refused = said(&t5(steps), false).err().unwrap();
            assert!(refused.contains("both or neither"), "{refused}");
        }
        let left = json!({"type": "Strip", "strip_left": true, "strip_right": true});
        let refused = said(&t5(json!([left, merge()])), false).err().unwrap();
        assert!(refused.contains("changes texts"), "{refused}");
    }
}
