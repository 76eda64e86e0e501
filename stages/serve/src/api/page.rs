//! The chat page: one file, with nothing that is fetched from elsewhere.

use axum::{
    http::{HeaderName, header},
    response::{Html, IntoResponse},
};

const PAGE: &str = include_str!("../page/chat.html");

/// What the page may do: run what stands in it and ask its own server.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn chat() -> impl IntoResponse {
    let headers: [(HeaderName, &str); 3] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Html(PAGE))
}
