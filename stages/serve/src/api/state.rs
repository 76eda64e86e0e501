//! What all requests share: the models, and how much may be asked at once.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::bodies::Bodies;
use crate::{Options, Served, engine::Engine, error::ApiError, params::Params};

/// Tokens and likelihoods that all answers together may come to: half a gigabyte where nobody takes
/// them. One request may ask for half of it.
const ROOM: usize = 1 << 22;

/// What all requests share.
pub(super) struct State {
    pub(super) models: Vec<Served>,
    pub(super) engine: Engine,
    pub(super) options: Options,
    places: Arc<Semaphore>,
    pub(super) bodies: Bodies,
    /// For what answers hold in memory, counted in tokens.
    room: Arc<Semaphore>,
    pub(super) began: u64,
    pub(super) n_requests: AtomicU64,
}

impl State {
    pub(super) fn new(models: Vec<Served>, options: Options) -> State {
        let n_slots = models.len().saturating_mul(options.n_slots);
        let n_places = n_slots.saturating_add(options.n_waiting);
        State {
            engine: Engine::start(&models, options.n_slots, options.n_threads),
            places: Arc::new(Semaphore::new(n_places.min(Semaphore::MAX_PERMITS))),
            bodies: Bodies::default(),
            room: Arc::new(Semaphore::new(ROOM)),
            models,
            options,
            began: now(),
            n_requests: AtomicU64::new(0),
        }
    }

    /// The model that a request names; of a request that names none, the first.
    pub(super) fn model(&self, params: &Params) -> Result<usize, ApiError> {
        self.named(params.text("model")?)
    }

    /// The model of a name; without one, the first.
    pub(super) fn named(&self, name: Option<&str>) -> Result<usize, ApiError> {
        let Some(name) = name else {
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
    pub(super) fn place(&self, n_tokens: usize) -> Result<[OwnedSemaphorePermit; 2], ApiError> {
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

pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
