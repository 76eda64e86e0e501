//! A tokenizer's artifact: `tokenizer.json` with every special token one id, the chat template,
//! and what generation must know.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Map, Value, json};
use tinylm_pipeline::{At, StageError};

use super::{
    CHAT_TEMPLATE_NAME, GENERATION_NAME, Generation, ID_MAX, TOKENIZER_NAME, Tokenizer,
    json::added_token,
};
use crate::shared::{form::OwnForm, json::write_json, template::Template};

/// Makes the template's tokens and further ones special, with ids behind the last where
/// the tokenizer does not know them.
pub(crate) fn add_specials(
    json: &mut Value,
    template: Template,
    further: &[String],
) -> Result<Generation, StageError> {
    clear_frames(json);
    let mut ids = known_ids(json);
    let mut next = ids.values().max().map_or(0, |id| id + 1);
    let mut added = added_by_id(json);
    let wanted = template.specials().iter().copied();
    for name in wanted.chain(further.iter().map(String::as_str)) {
        let id = *ids.entry(name.to_owned()).or_insert_with(|| {
            next += 1;
            next - 1
        });
        added.insert(id, added_token(id as u32, name, true));
    }
    let largest = ids.values().max().copied().unwrap_or_default();
    if largest > u64::from(ID_MAX) {
        let message =
            format!("the largest id would be {largest}, and shards hold ids up to {ID_MAX}");
        return Err(StageError::new(message)
            .help("take a tokenizer with a smaller vocabulary, or train one")
            .is_final());
    }
    let id = |name: &str| ids.get(name).map(|&id| id as u32);
    let generation = Generation {
        template: Some(template),
        form: None,
        stop: template
            .stops()
            .iter()
            .map(|&name| name.to_owned())
            .collect(),
        stop_ids: template
            .stops()
            .iter()
            .filter_map(|name| id(name))
            .collect(),
        bos: template.bos().map(str::to_owned),
        bos_id: template.bos().and_then(id),
        eos: Some(template.eos().to_owned()),
        eos_id: id(template.eos()),
        pad_id: ["<pad>", "[PAD]", "<|pad|>"].into_iter().find_map(id),
        specials: specials(&added),
    };
    json["added_tokens"] = added.into_values().collect();
    Ok(generation)
}

pub(crate) fn known_ids(json: &Value) -> BTreeMap<String, u64> {
    let mut ids = BTreeMap::new();
    match &json["model"]["vocab"] {
        Value::Object(vocab) => {
            let known = vocab
                .iter()
                .filter_map(|(token, id)| Some((token.clone(), id.as_u64()?)));
            ids.extend(known);
        }
        Value::Array(pieces) => {
            let pieces = pieces.iter().zip(0..);
            ids.extend(pieces.filter_map(|(piece, id)| Some((piece[0].as_str()?.to_owned(), id))));
        }
        _ => {}
    }
    for token in json["added_tokens"].as_array().into_iter().flatten() {
        if let (Some(content), Some(id)) = (token["content"].as_str(), token["id"].as_u64()) {
            ids.insert(content.to_owned(), id);
        }
    }
    ids
}

/// Writes the artifact's files and opens them again as every later stage will.
pub(crate) fn write(
    out: &Path,
    json: &Value,
    generation: Generation,
) -> Result<Tokenizer, StageError> {
    let template = generation.template;
    let tokenizer = write_tokenizer(out, json, generation)?;
    let jinja = template.map(|template| template.jinja(tokenizer.spacing()));
    let path = out.join(CHAT_TEMPLATE_NAME);
    fs::write(&path, jinja.unwrap_or_default()).at(&path)?;
    Ok(tokenizer)
}

/// Writes the tokenizer that came with a model: its ids as they are, and its own chat template.
pub(crate) fn write_foreign(
    out: &Path,
    mut json: Value,
    form: OwnForm,
    jinja: &str,
    vocab_size: usize,
) -> Result<Tokenizer, StageError> {
    clear_frames(&mut json);
    let ids = known_ids(&json);
    let mut added = added_by_id(&json);
    for name in form.specials() {
        let id = ids.get(&name).copied().ok_or_else(|| {
            let message = format!(
                "the model ends a text or a turn with `{name}`, and its tokenizer has no such token"
            );
            StageError::new(message).is_final()
        })?;
        added.insert(id, added_token(id as u32, &name, true));
    }
    let largest = ids.values().max().copied().unwrap_or_default();
    if largest >= vocab_size as u64 {
        let message =
            format!("the tokenizer has the id {largest}, and the model knows {vocab_size} tokens");
        return Err(StageError::new(message).is_final());
    }
    // Rows of the embedding that no token has: sizes are filled up to round numbers.
    for id in largest + 1..vocab_size as u64 {
        added.insert(
            id,
            added_token(id as u32, &format!("<|unused-{id}|>"), true),
        );
    }
    let generation = foreign_generation(form, &ids, &added);
    json["added_tokens"] = added.into_values().collect();
    let tokenizer = write_tokenizer(out, &json, generation)?;
    let path = out.join(CHAT_TEMPLATE_NAME);
    fs::write(&path, jinja).at(&path)?;
    Ok(tokenizer)
}

fn foreign_generation(
    form: OwnForm,
    ids: &BTreeMap<String, u64>,
    added: &BTreeMap<u64, Value>,
) -> Generation {
    let id = |name: &String| ids.get(name).map(|&id| id as u32);
    Generation {
        template: None,
        stop: form.stops.clone(),
        stop_ids: form.stops.iter().filter_map(id).collect(),
        bos: form.bos.clone(),
        bos_id: form.bos.as_ref().and_then(id),
        eos: Some(form.eos.clone()),
        eos_id: id(&form.eos),
        pad_id: None,
        specials: specials(added),
        form: Some(form),
    }
}

/// Returns the names of special tokens with their ids.
fn specials(added: &BTreeMap<u64, Value>) -> BTreeMap<String, u32> {
    let specials = added.iter().filter(|(_, token)| token["special"] == true);
    let named = specials
        .filter_map(|(id, token)| Some((token["content"].as_str()?.to_owned(), *id as u32)));
    named.collect()
}

/// A tokenizer of another purpose may cut or fill its texts, or frame them (`</s>`).
fn clear_frames(json: &mut Value) {
    for part in ["truncation", "padding", "post_processor"] {
        json[part] = Value::Null;
    }
}

fn added_by_id(json: &Value) -> BTreeMap<u64, Value> {
    let tokens = json["added_tokens"].as_array().into_iter().flatten();
    tokens
        .map(|token| (token["id"].as_u64().unwrap_or_default(), token.clone()))
        .collect()
}

fn write_tokenizer(
    out: &Path,
    json: &Value,
    generation: Generation,
) -> Result<Tokenizer, StageError> {
    let text = tokenizer_text(json);
    let path = out.join(TOKENIZER_NAME);
    fs::write(&path, text).at(&path)?;
    write_json(&out.join(GENERATION_NAME), &json!(generation))?;
    Tokenizer::load(out).map_err(|error| StageError::new(error.to_string()).is_final())
}

/// Returns `json` with its parts in the order that the libraries write them in.
fn tokenizer_text(json: &Value) -> String {
    const PARTS: [&str; 9] = [
        "version",
        "truncation",
        "padding",
        "added_tokens",
        "normalizer",
        "pre_tokenizer",
        "post_processor",
        "decoder",
        "model",
    ];
    let parts = PARTS.map(|part| (part.to_owned(), json[part].clone()));
    let mut text = Value::Object(Map::from_iter(parts)).to_string();
    text.push('\n');
    text
}
