//! What may go wrong with one request, sorted by what follows from it.

use tinylm_registry::Error;

/// Why a request brought nothing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    Absent,
    /// What came is not what it should be.
    Wrong(String),
    Forbidden(String),
    Unreachable(String),
    /// Something is the matter on this machine.
    Here(String),
    Stopped,
}

/// The longest reason that is told.
const REASON_MAX: usize = 240;

impl From<object_store::Error> for Fault {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
        let why = reason(&error);
        match &error {
            // A bucket that is not there has nothing for anybody, which is no miss.
            NotFound { source, .. } if source.to_string().contains("NoSuchBucket") => {
                Self::Forbidden("there is no such bucket".to_owned())
            }
            NotFound { .. } => Self::Absent,
            PermissionDenied { .. } | Unauthenticated { .. } => Self::Forbidden(why),
            _ => Self::Unreachable(why),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Here(error.to_string())
    }
}

/// The reason of an error stands in its deepest source, perhaps as a page of XML.
fn reason(error: &object_store::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(deeper) = deepest.source() {
        deepest = deeper;
    }
    let text = deepest.to_string();
    let tag = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once("</")?.0.to_owned())
    };
    let short = match (tag("Code"), tag("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code,
        _ => text.clone(),
    };
    let line = short.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut line: String = line.chars().filter(|c| !c.is_control()).collect();
    if let Some((end, _)) = line.char_indices().nth(REASON_MAX) {
        line.truncate(end);
    }
    line
}
