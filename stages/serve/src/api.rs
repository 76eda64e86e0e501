//! What can be asked for, and who may ask.

mod about;
mod answer;
mod ask;
mod body;
mod chat;
mod completions;
pub(crate) mod guard;
mod logprobs;
mod page;
mod tokens;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    http::StatusCode,
    routing::{get, post},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Options, Served, engine::Engine, error::ApiError, params::Params};

/// Tokens and likelihoods that all answers together may come to: half a gigabyte where nobody takes
/// them. One request may ask for half of it.
const ROOM: usize = 1 << 22;

/// What all requests share.
pub(crate) struct State {
    models: Vec<Served>,
    engine: Engine,
    options: Options,
    places: Arc<Semaphore>,
    bodies: body::Bodies,
    /// For what answers hold in memory, counted in tokens.
    room: Arc<Semaphore>,
    began: u64,
    n_requests: AtomicU64,
}

impl State {
    pub(crate) fn new(models: Vec<Served>, options: Options) -> State {
        let n_slots = models.len().saturating_mul(options.n_slots);
        let n_places = n_slots.saturating_add(options.n_waiting);
        State {
            engine: Engine::start(&models, options.n_slots, options.n_threads),
            places: Arc::new(Semaphore::new(n_places.min(Semaphore::MAX_PERMITS))),
            bodies: body::Bodies::default(),
            room: Arc::new(Semaphore::new(ROOM)),
            models,
            options,
            began: now(),
            n_requests: AtomicU64::new(0),
        }
    }

    /// The model that a request names; of a request that names none, the first.
    fn model(&self, params: &Params) -> Result<usize, ApiError> {
        let Some(name) = params.text("model")? else {
            return Ok(0);
        };
        let mut names = self.models.iter().map(|served| served.name.as_str());
        names.position(|known| known == name).ok_or_else(|| {
            let known: Vec<String> = self
                .models
                .iter()
                .map(|served| format!("`{}`", served.name))
                .collect();
            ApiError {
                status: StatusCode::NOT_FOUND,
                ..ApiError::wrong(
                    "model",
                    format!("there is no model `{name}`; there is {}", known.join(", ")),
                )
            }
            .code("model_not_found")
        })
    }

    /// A place among the requests that are answered or wait, with room for all that is answered.
    fn place(&self, n_tokens: usize) -> Result<[OwnedSemaphorePermit; 2], ApiError> {
        if n_tokens > ROOM / 2 {
            return Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                format!(
                    "the answers may come to {n_tokens} tokens and likelihoods, and a request to {}: \
                     ask for fewer prompts, choices, tokens or likelihoods",
                    ROOM / 2
                ),
            ));
        }
        let full = |_| {
            ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many requests wait already; try again",
            )
        };
        let place = Arc::clone(&self.places).try_acquire_owned();
        let room = Arc::clone(&self.room).try_acquire_many_owned(n_tokens as u32);
        Ok([place.map_err(full)?, room.map_err(full)?])
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

pub(crate) fn router(state: Arc<State>, addr: SocketAddr) -> Router {
    let door = guard::Door {
        is_local: addr.ip().is_loopback(),
        api_key: state.options.api_key.clone(),
    };
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
