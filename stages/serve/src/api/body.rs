//! The body of a request, whose refusal is said as everything is.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    response::IntoResponse,
};

use crate::error::ApiError;

pub(super) struct Body(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Body, ApiError> {
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|refused| {
            let message = refused.body_text();
            ApiError::new(refused.into_response().status(), message)
        });
        body.map(Body)
    }
}
