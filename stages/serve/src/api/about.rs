//! What the server says of itself.

use std::{
    fmt::Write,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::{StatusCode, Uri, header},
    response::IntoResponse,
};
use serde_json::{Value, json};

use super::state::State as Shared;
use crate::{Served, error::ApiError};

pub(super) async fn models(State(state): State<Arc<Shared>>) -> Json<Value> {
    let models: Vec<Value> = state
        .models
        .iter()
        .map(|served| one(&state, served))
        .collect();
    Json(json!({ "object": "list", "data": models }))
}

pub(super) async fn model(
    State(state): State<Arc<Shared>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(name) = name.map_err(|wrong| ApiError::new(wrong.status(), wrong.body_text()))?;
    let found = state.models.iter().find(|served| served.name == name);
    let missing = || {
        ApiError::new(StatusCode::NOT_FOUND, format!("there is no model `{name}`"))
            .code("model_not_found")
    };
    found
        .map(|served| Json(one(&state, served)))
        .ok_or_else(missing)
}

fn one(state: &Shared, served: &Served) -> Value {
    let config = served.model.config();
    json!({
        "id": served.name,
        "object": "model",
        "created": state.began,
        "owned_by": "tinylm",
        "max_model_len": config.context,
        "meta": { "n_params": config.n_params(), "n_ctx_train": config.context, "n_vocab": config.vocab_size },
    })
}

pub(super) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Prometheus' text format.
pub(super) async fn metrics(State(state): State<Arc<Shared>>) -> impl IntoResponse {
    let counts = &state.engine.counts;
    let mut text = String::new();
    let mut put = |name: &str, kind: &str, about: &str, value: u64| {
        let _ = write!(
            text,
            "# HELP tinylm_{name} {about}\n# TYPE tinylm_{name} {kind}\ntinylm_{name} {value}\n"
        );
    };
    put(
        "requests_total",
        "counter",
        "Requests for an answer.",
        state.n_requests.load(Relaxed),
    );
    put(
        "prompt_tokens_total",
        "counter",
        "Tokens of prompts.",
        counts.n_prompt_tokens.load(Relaxed),
    );
    put(
        "cached_tokens_total",
        "counter",
        "Tokens of prompts that were known already.",
        counts.n_cached_tokens.load(Relaxed),
    );
    put(
        "generated_tokens_total",
        "counter",
        "Tokens of answers.",
        counts.n_generated_tokens.load(Relaxed),
    );
    put(
        "passes_total",
        "counter",
        "Passes through a model.",
        counts.n_passes.load(Relaxed),
    );
    put(
        "active",
        "gauge",
        "Answers under way.",
        counts.n_active.load(Relaxed) as u64,
    );
    put(
        "waiting",
        "gauge",
        "Answers that wait for a place.",
        counts.n_waiting.load(Relaxed) as u64,
    );
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

/// What OpenAI has at `/v1/`, and this server has not.
const ELSEWHERE: [&str; 7] = [
    "embeddings",
    "responses",
    "images",
    "audio",
    "moderations",
    "files",
    "batches",
];

pub(super) async fn unknown(uri: Uri) -> ApiError {
    let path = uri.path();
    let first = path
        .strip_prefix("/v1/")
        .and_then(|rest| rest.split('/').next());
    match first.filter(|first| ELSEWHERE.contains(first)) {
        Some(name) => {
            let message = format!("`{name}` is not supported by this server");
            ApiError::new(StatusCode::BAD_REQUEST, message).code("unsupported_endpoint")
        }
        None => ApiError::new(
            StatusCode::NOT_FOUND,
            format!("there is nothing at `{path}`"),
        ),
    }
}

pub(super) async fn wrong_method(uri: Uri) -> ApiError {
    let message = format!("`{}` is asked in another way (GET or POST)", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}
