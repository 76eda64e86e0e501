//! A source outside this machine, and the pin that stands for what it was when first seen.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Something outside this machine that a stage reads, before it is known what it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// Names it in the lock file: `hub dataset roskoN/dailydialog@main`.
    pub id: String,
    /// The settings that only say where it is (`hub`, `revision`): the pin stands for
    /// them in the key. Dotted paths inside `with`.
    pub places: Vec<String>,
}

/// The state of a [`Remote`] when it was asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pin {
    /// Takes part in the key: a commit, a digest. Never an address or a time.
    pub identity: Value,
    /// Kept beside it for people and for the download itself: sizes, file names.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}
