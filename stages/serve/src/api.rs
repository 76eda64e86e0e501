//! What can be asked for, and who may ask.

mod about;
mod answer;
mod ask;
pub(crate) mod bodies;
pub(crate) mod body;
mod chat;
mod completions;
mod events;
pub(crate) mod guard;
mod known;
mod logprobs;
mod page;
mod state;
mod tokens;

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post},
};

use crate::{Options, Served};
use state::State;

pub(crate) fn router(models: Vec<Served>, options: Options) -> Router {
    let door = guard::Door {
        is_local: options.addr.ip().is_loopback(),
        api_key: options.api_key.clone(),
    };
    let state = Arc::new(State::new(models, options));
    let router = Router::new()
        .route("/v1/chat/completions", post(chat::answer))
        .route("/v1/completions", post(completions::answer))
        .route("/v1/models", get(about::models))
        .route("/v1/models/{*name}", get(about::model))
        .route("/", get(page::chat))
        .route("/health", get(about::health))
        .route("/metrics", get(about::metrics))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/tokenizer_info", get(tokens::info))
        .route("/apply-template", post(tokens::apply_template))
        .fallback(about::unknown)
        .method_not_allowed_fallback(about::wrong_method)
        .with_state(state);
    door.before(router)
}
