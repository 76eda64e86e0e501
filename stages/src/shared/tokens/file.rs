//! `tokenizer.json` as the crate must be given it, and the facts that it holds.
//!
//! Files written by Hugging Face's released libraries are brought into the crate's
//! current form when they are read, never on disk.

use std::{collections::BTreeMap, ops::RangeInclusive};

use serde_json::Value;
use tokenizers::json::Json;

use super::spelling::byte_level_char;
use crate::shared::{base64, template::Spacing};

pub(super) fn vocabulary(json: &Value) -> Result<Vec<(String, u32)>, String> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let mut by_id: BTreeMap<u32, String> = BTreeMap::new();
    match &json["model"]["vocab"] {
        Value::Object(entries) => {
            for (token, value) in entries {
                let id = id(value).ok_or_else(|| format!("the id of `{token}` is {value}"))?;
                by_id.insert(id, token.clone());
            }
        }
        Value::Array(entries) => {
            for (idx, entry) in entries.iter().enumerate() {
                let token = entry[0].as_str();
                let token =
                    token.ok_or_else(|| format!("entry {idx} of its vocabulary is {entry}"))?;
                by_id.insert(idx as u32, token.to_owned());
            }
        }
        _ => return Err("it has no vocabulary".to_owned()),
    }
    for added in added_tokens(json) {
        if let (Some(id), Some(content)) = (id(&added["id"]), added["content"].as_str()) {
            by_id.insert(id, content.to_owned());
        }
    }
    Ok(by_id.into_iter().map(|(id, token)| (token, id)).collect())
}

fn added_tokens(json: &Value) -> impl Iterator<Item = &Value> {
    json["added_tokens"].as_array().into_iter().flatten()
}

pub(super) fn specials(json: &Value) -> BTreeMap<String, u32> {
    let special = added_tokens(json).filter(|added| added["special"] == true);
    special
        .filter_map(|added| {
            let id = u32::try_from(added["id"].as_u64()?).ok()?;
            Some((added["content"].as_str()?.to_owned(), id))
        })
        .collect()
}

/// Makes the crate read the scores that it would read in the file itself.
///
/// Its reader, like the released library's, is off by a bit for some numbers, and here it
/// reads what was read and written once already. A bit decides which of two equally
/// likely cuts is taken, so each score is written as a number that is read as it should.
pub(super) fn keep_scores(json: &str, value: &mut Value) {
    let Ok(read) = Json::parse(json) else {
        return;
    };
    let pieces = read
        .field("model")
        .and_then(|model| model.field("vocab")?.as_array());
    let written = value["model"]["vocab"].as_array_mut();
    for (piece, entry) in pieces
        .into_iter()
        .flatten()
        .zip(written.into_iter().flatten())
    {
        let score = piece.as_array().and_then(|pair| pair.get(1)?.as_f64());
        if let (Some(score), Some(number)) = (score, entry.get_mut(1)) {
            let candidates = [score, score.next_up(), score.next_down()];
            let kept = candidates
                .into_iter()
                .find(|candidate| reads_as(*candidate, score));
            *number = Value::from(kept.unwrap_or(score));
        }
    }
}

/// Whether the crate takes what is written for `written` as `wanted`.
fn reads_as(written: f64, wanted: f64) -> bool {
    let text = Value::from(written).to_string();
    Json::parse(&text).is_ok_and(|json| json.as_f64() == Some(wanted))
}

/// How many times as long as it was normalizers or decoders may make a text.
const GROWTH_MAX: f64 = 1000.0;

/// Refuses normalizers and decoders that make more of a text than memory holds. Each part of a
/// sequence may replace what those before it have written, so that thirty small ones can.
pub(super) fn check_growth(json: &Value) -> Result<(), String> {
    for part in ["normalizer", "decoder"] {
        let growth = growth(&json[part])?;
        if growth > GROWTH_MAX {
            return Err(format!(
                "its `{part}` can make a text {growth:.0} times as long"
            ));
        }
    }
    Ok(())
}

/// By how much a step and those in it multiply a text at most.
fn growth(json: &Value) -> Result<f64, String> {
    let steps = ["normalizers", "decoders"].map(|name| json[name].as_array());
    let mut growth = 1.0;
    for step in steps.into_iter().flatten().flatten() {
        growth *= self::growth(step)?;
    }
    let len = |value: &Value| value.as_str().map_or(0, str::len) as f64;
    Ok(match json["type"].as_str() {
        // A pattern of no length is found between all characters.
        Some("Replace") => match len(&json["pattern"]["String"]) {
            0.0 => growth * (1.0 + len(&json["content"])),
            pattern => growth * (len(&json["content"]) / pattern).max(1.0),
        },
        Some("Prepend") => growth.max(len(&json["prepend"])),
        Some("Precompiled") => {
            check_table(json["precompiled_charsmap"].as_str().unwrap_or_default())?;
            growth
        }
        _ => growth,
    })
}

/// Refuses a table of characters that claims to be longer than it is, because the crate takes the
/// memory before it looks. Its first four bytes are its length.
fn check_table(table: &str) -> Result<(), String> {
    if table.is_empty() {
        return Ok(());
    }
    let head = table.get(..6).and_then(base64::decoded);
    let length = head.and_then(|head| head.try_into().ok());
    let claimed = length.map(u32::from_le_bytes);
    match claimed.is_some_and(|claimed| claimed as usize <= table.len()) {
        true => Ok(()),
        false => Err("its `precompiled_charsmap` is cut short".to_owned()),
    }
}

pub(super) fn unknown_id(json: &Value, vocabulary: &[(String, u32)]) -> Option<u32> {
    let model = &json["model"];
    if let Some(id) = model["unk_id"].as_u64() {
        return u32::try_from(id).ok();
    }
    let name = model["unk_token"].as_str()?;
    let found = vocabulary.iter().find(|(token, _)| token == name);
    found.map(|(_, id)| *id)
}

/// Visits a `pre_tokenizer` and the members of a sequence.
fn pre_tokenizers(json: &mut Value) -> Vec<&mut Value> {
    let node = &mut json["pre_tokenizer"];
    if node["type"] == "Sequence" {
        let members = node["pretokenizers"].as_array_mut();
        return members.into_iter().flatten().collect();
    }
    vec![node]
}

pub(super) fn is_byte_level(json: &Value) -> bool {
    let mut json = json.clone();
    let members = pre_tokenizers(&mut json);
    let found = members.iter().any(|member| member["type"] == "ByteLevel");
    found || json["model"]["byte_level"] == true
}

/// Gives bytes that a byte-level vocabulary lacks (SmolLM's lacks eight) some of the free ids,
/// because the crate refuses such a vocabulary; returns those ids. The released library leaves
/// out what it has no token for.
pub(super) fn fill_bytes(json: &mut Value, free: RangeInclusive<u32>) -> Vec<u32> {
    if !is_byte_level(json) || json["model"]["type"] != "BPE" {
        return Vec::new();
    }
    let Some(vocab) = json["model"]["vocab"].as_object_mut() else {
        return Vec::new();
    };
    let bytes = (0..=255).map(|byte| byte_level_char(byte).to_string());
    let missing: Vec<String> = bytes.filter(|byte| !vocab.contains_key(byte)).collect();
    let ids: Vec<u32> = free.take(missing.len()).collect();
    let entries = missing
        .into_iter()
        .zip(ids.iter().map(|id| Value::from(*id)));
    vocab.extend(entries);
    ids
}

/// Takes `add_prefix_space` off a byte-level pre-tokenizer: the crate no longer knows it,
/// and for texts that are encoded whole it is a space put in front.
pub(super) fn take_prefix_space(json: &mut Value) -> bool {
    let mut found = false;
    for member in pre_tokenizers(json) {
        if member["type"] == "ByteLevel" && member["add_prefix_space"] == true {
            member["add_prefix_space"] = Value::Bool(false);
            found = true;
        }
    }
    found
}

/// Returns where words need a space so that they carry it. A mark that is only put before
/// a whole text is left to [`Spacing`]: the crate would put it before every piece.
pub(super) fn take_spacing(json: &mut Value) -> Spacing {
    let mut members = pre_tokenizers(json).into_iter();
    let Some(metaspace) = members.find(|member| member["type"] == "Metaspace") else {
        return Spacing::Nowhere;
    };
    match metaspace["prepend_scheme"].as_str() {
        Some("never") => Spacing::Nowhere,
        Some("first") => {
            metaspace["prepend_scheme"] = Value::from("never");
            Spacing::Everywhere
        }
        _ if metaspace["add_prefix_space"] == false => Spacing::Nowhere,
        _ => Spacing::BehindText,
    }
}

/// Whether a normalizer puts a mark before every text (Llama's first tokenizers).
pub(super) fn puts_mark_before(json: &Value) -> bool {
    let node = &json["normalizer"];
    let members = node["normalizers"].as_array().into_iter().flatten();
    members
        .chain([node])
        .any(|member| member["type"] == "Prepend")
}
