//! A model's tokenizer and its template, for whoever wants to count or to look.

use std::sync::Arc;

use axum::{Json, extract::State, http::Uri};
use serde_json::{Value, json};

use super::{body::Body, chat, known, state::State as Shared};
use crate::{error::ApiError, params::Params};

pub(super) async fn tokenize(
    State(state): State<Arc<Shared>>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    body.understood(&state, |params| ids_of(&state, params))
        .await
}

fn ids_of(state: &Shared, params: &Params) -> Result<Json<Value>, ApiError> {
    known::TOKENIZE.check(params)?;
    let served = &state.models[state.model(params)?];
    let name = match params.get("content") {
        Some(_) => "content",
        None => "prompt",
    };
    let text = params
        .text(name)?
        .ok_or_else(|| ApiError::wrong("content", "`content` is missing"))?;
    let mut ids = Vec::new();
    if params.flag("add_special")? || params.flag("add_special_tokens")? {
        ids.extend(served.tokenizer.generation().bos_id);
    }
    let encoded = served.tokenizer.encode(text);
    ids.extend(encoded.map_err(|error| ApiError::wrong(name, error.to_string()))?);
    let (n, context) = (ids.len(), served.context());
    Ok(Json(
        json!({ "tokens": ids, "count": n, "max_model_len": context }),
    ))
}

pub(super) async fn detokenize(
    State(state): State<Arc<Shared>>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    body.understood(&state, |params| text_of(&state, params))
        .await
}

fn text_of(state: &Shared, params: &Params) -> Result<Json<Value>, ApiError> {
    known::DETOKENIZE.check(params)?;
    let served = &state.models[state.model(params)?];
    let ids = params.need("tokens")?.as_array().map(|list| {
        let ids = list
            .iter()
            .map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()));
        ids.collect::<Option<Vec<u32>>>()
    });
    let ids = ids
        .flatten()
        .ok_or_else(|| ApiError::wrong("tokens", "`tokens` must be a list of ids"))?;
    let n = served.tokenizer.vocab_size();
    if let Some(id) = ids.iter().find(|id| **id as usize >= n) {
        return Err(ApiError::wrong(
            "tokens",
            format!("{id} is outside the vocabulary of {n}"),
        ));
    }
    let text = served.tokenizer.decode_all(&ids);
    let text = text.map_err(|error| ApiError::wrong("tokens", error.to_string()))?;
    Ok(Json(json!({ "content": text, "prompt": text })))
}

/// Of the model that `?model=` names, or of the first.
pub(super) async fn info(
    State(state): State<Arc<Shared>>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let mut asked = form_urlencoded::parse(uri.query().unwrap_or("").as_bytes());
    let name = asked.find(|(name, _)| name == "model");
    let served = &state.models[state.named(name.as_ref().map(|(_, name)| &**name))?];
    let generation = served.tokenizer.generation();
    let mut specials = generation.specials.iter();
    let pad = specials.find(|(_, id)| Some(**id) == generation.pad_id);
    Ok(Json(json!({
        "model": served.name,
        "vocab_size": served.tokenizer.vocab_size(),
        "max_model_len": served.context(),
        "bos_token": generation.bos,
        "bos_token_id": generation.bos_id,
        "eos_token": generation.eos,
        "eos_token_id": generation.eos_id,
        "pad_token": pad.map(|(name, _)| name),
        "pad_token_id": generation.pad_id,
        "stop": generation.stop,
        "chat_template": served.template,
    })))
}

/// The prompt that a dialogue becomes.
pub(super) async fn apply_template(
    State(state): State<Arc<Shared>>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    body.understood(&state, |params| prompt_of(&state, params))
        .await
}

fn prompt_of(state: &Shared, params: &Params) -> Result<Json<Value>, ApiError> {
    known::CHAT.check(params)?;
    let served = &state.models[state.model(params)?];
    let dialogue = chat::Dialogue::of(params)?;
    let prompt = dialogue.prompt(served, 1, false)?;
    let ids: Vec<u32> = prompt.ids.iter().map(|id| u32::from(*id)).collect();
    let text = served.tokenizer.decode_all(&ids);
    let text = text.map_err(|error| ApiError::wrong("messages", error.to_string()))?;
    Ok(Json(json!({ "prompt": text, "tokens": ids })))
}
