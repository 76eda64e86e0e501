//! The small JSON files of artifacts, written for people to read.

use std::{fs, path::Path};

use serde_json::Value;
use tinylm_pipeline::{At, StageError};

pub(crate) fn write_json(path: &Path, value: &Value) -> Result<(), StageError> {
    fs::write(path, format!("{value:#}\n")).at(path)
}
