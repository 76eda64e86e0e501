//! The body of a request: read within limits, and understood without holding up others.
//!
//! A limit on each body alone would let a thousand connections hold gigabytes, so what has come of
//! all bodies has a limit too. A long text takes seconds to be cut into tokens, which two requests
//! at a time may spend beside the threads that serve the others.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body as Stream,
    extract::{FromRequest, Request},
    http::{StatusCode, header},
};
use futures_util::StreamExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::block_in_place,
    time::timeout,
};

use super::{bodies::Bodies, state::State};
use crate::{error::ApiError, params::Params};

/// Most bytes of a request.
const MOST: usize = 4 << 20;
/// How long a body may take to come.
const TIME: Duration = Duration::from_secs(30);
/// Bytes that are understood in no time.
const SMALL: usize = 16 << 10;

/// What a request has brought, whole.
pub struct Body {
    bytes: Vec<u8>,
    #[expect(dead_code, reason = "given back with the bytes")]
    place: Option<OwnedSemaphorePermit>,
}

impl FromRequest<Arc<State>> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<State>) -> Result<Body, ApiError> {
        Body::of(request, &state.bodies).await
    }
}

impl Body {
    /// Reads the body of a request, within the limits of each and of all.
    pub async fn of(request: Request, bodies: &Bodies) -> Result<Body, ApiError> {
        let declared = request.headers().get(header::CONTENT_LENGTH);
        let declared = declared.and_then(|n| n.to_str().ok()?.parse::<usize>().ok());
        if declared.is_some_and(|n| n > MOST) {
            return Err(too_long());
        }
        let read = timeout(TIME, read(request.into_body(), &bodies.bytes));
        read.await.unwrap_or_else(|_| {
            let message = format!("the body has not come within {} seconds", TIME.as_secs());
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message))
        })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads the parameters and makes something of them.
    pub(super) async fn understood<T>(
        self,
        state: &State,
        make: impl FnOnce(&Params) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let is_small = self.bytes.len() <= SMALL;
        let understand = || {
            let params = Params::parse(&self.bytes)?;
            make(&params)
        };
        if is_small {
            return understand();
        }
        // Never closed, so that there is a turn for everybody.
        let _turn = state.bodies.large.acquire().await;
        block_in_place(understand)
    }
}

async fn read(body: Stream, places: &Arc<Semaphore>) -> Result<Body, ApiError> {
    let mut chunks = body.into_data_stream();
    let (mut bytes, mut place) = (Vec::new(), None::<OwnedSemaphorePermit>);
    while let Some(chunk) = chunks.next().await {
        let broken = |error: axum::Error| {
            let message = format!("the body broke off: {error}");
            ApiError::new(StatusCode::BAD_REQUEST, message)
        };
        let chunk = chunk.map_err(broken)?;
        if bytes.len() + chunk.len() > MOST {
            return Err(too_long());
        }
        let more = Arc::clone(places).try_acquire_many_owned(chunk.len() as u32);
        let more = more.map_err(|_| {
            let message = "too much is sent to this server at once; try again";
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, message)
        })?;
        match &mut place {
            Some(place) => place.merge(more),
            None => place = Some(more),
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Body { bytes, place })
}

fn too_long() -> ApiError {
    let message = format!("a request may have {} MiB", MOST >> 20);
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}
