//! What goes wrong, in the shape that OpenAI's clients read.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// OpenAI's clients ask again unless it says otherwise.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// A request that is not answered as asked.
#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
    /// The parameter that is at fault.
    pub(crate) param: Option<String>,
    pub(crate) code: Option<&'static str>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError {
            status,
            message: message.into(),
            param: None,
            code: None,
        }
    }

    /// A parameter that cannot be meant.
    pub(crate) fn wrong(param: &str, message: impl Into<String>) -> ApiError {
        ApiError {
            param: Some(param.to_owned()),
            ..ApiError::new(StatusCode::BAD_REQUEST, message)
        }
    }

    /// Something that other servers have, and this one has not. Not 501, which clients try again and again.
    pub(crate) fn missing(param: &str) -> ApiError {
        ApiError {
            param: Some(param.to_owned()),
            code: Some("unsupported_parameter"),
            ..ApiError::new(
                StatusCode::BAD_REQUEST,
                format!("`{param}` is not supported by this server"),
            )
        }
    }

    /// The same with other words.
    pub(crate) fn with(self, message: String) -> ApiError {
        ApiError { message, ..self }
    }

    pub(crate) fn code(self, code: &'static str) -> ApiError {
        ApiError {
            code: Some(code),
            ..self
        }
    }

    /// Whether the same request may be answered at another time.
    fn may_pass(&self) -> bool {
        matches!(
            self.status,
            StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::SERVICE_UNAVAILABLE
        )
    }

    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::INTERNAL_SERVER_ERROR => "server_error",
            _ => "invalid_request_error",
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        json!({
            "error": {
                "message": self.message,
                "type": self.kind(),
                "param": self.param,
                "code": self.code,
            }
        })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.json())).into_response();
        let (name, value) = match self.may_pass() {
            true => (header::RETRY_AFTER, "1"),
            false => (SHOULD_RETRY, "false"),
        };
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
        response
    }
}
