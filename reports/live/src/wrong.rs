//! What cannot be shown, and why.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use tinylm_registry::Error;

#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl Wrong {
    pub(crate) fn asked(message: impl Into<String>) -> Wrong {
        Wrong {
            status: StatusCode::BAD_REQUEST,
            message: message.into(),
        }
    }

    pub(crate) fn absent(message: impl Into<String>) -> Wrong {
        Wrong {
            status: StatusCode::NOT_FOUND,
            message: message.into(),
        }
    }

    pub(crate) fn refused(message: impl Into<String>) -> Wrong {
        Wrong {
            status: StatusCode::FORBIDDEN,
            message: message.into(),
        }
    }

    pub(crate) fn broken(message: impl Into<String>) -> Wrong {
        Wrong {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            message: message.into(),
        }
    }

    pub(crate) fn no_runs() -> Wrong {
        Wrong::absent("there are no runs yet; `tinylm run FILE` makes the first")
    }
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Wrong {
        let message = error.to_string();
        match error {
            Error::UnknownRun { .. } | Error::AmbiguousRun { .. } => Wrong::absent(message),
            Error::UnknownName { .. } | Error::Filter(_) => Wrong::asked(message),
            _ => Wrong::broken(message),
        }
    }
}

impl From<tinylm_reports::Error> for Wrong {
    fn from(error: tinylm_reports::Error) -> Wrong {
        match error {
            tinylm_reports::Error::Registry(error) => error.into(),
            error => Wrong::asked(error.to_string()),
        }
    }
}

impl From<tinylm_serve::ApiError> for Wrong {
    fn from(error: tinylm_serve::ApiError) -> Wrong {
        Wrong {
            status: error.status,
            message: error.message,
        }
    }
}

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        (self.status, plain, self.message + "\n").into_response()
    }
}
