//! The small JSON files of artifacts, written for people to read.

use std::{fs, path::Path};

use serde_json::Value;
use tinylm_pipeline::{At, StageError};

pub(crate) fn write_json(path: &Path, value: &Value) -> Result<(), StageError> {
    fs::write(path, json_text(value)).at(path)
}

/// Returns the bytes of such a file.
pub(crate) fn json_text(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}
