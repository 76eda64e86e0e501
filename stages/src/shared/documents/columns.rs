//! The columns of a file of documents, and the errors that name one.

use std::{path::Path, sync::Arc};

use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use parquet::errors::ParquetError;
use tinylm_pipeline::StageError;

/// The leaf columns that hold what was said.
pub(super) const CONTENT_LEAVES: [usize; 2] = [1, 2];

pub(super) const VERSION_KEY: &str = "tinylm.documents";
pub(super) const VERSION: &str = "2";

/// A row has either `messages` or `text`.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("messages", DataType::List(message_item()), true),
        Field::new("text", DataType::Utf8, true),
        Field::new("source", DataType::Utf8, false),
        Field::new("id", DataType::FixedSizeBinary(32), false),
        Field::new("group", DataType::FixedSizeBinary(32), false),
    ]))
}

pub(super) fn message_fields() -> Fields {
    Fields::from(vec![
        Field::new("role", DataType::Utf8, false),
        Field::new("content", DataType::Utf8, false),
    ])
}

/// Named as Parquet's own description names it.
pub(super) fn message_item() -> Arc<Field> {
    let messages = DataType::Struct(message_fields());
    Arc::new(Field::new("element", messages, false))
}

/// Says that a Parquet file cannot be read or written.
pub(super) fn parquet_error(path: &Path, error: &ParquetError) -> StageError {
    StageError::new(format!("`{}`: {error}", path.display()))
}
