//! `rejected.parquet`: what was left out, where it stood and why.

use std::{fs::File, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray, UInt64Array},
    datatypes::{DataType, Field, Schema},
};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use tinylm_pipeline::{At, StageError};

use super::{files::Source, rows::Rejection};

const BATCH_ROWS: usize = 1 << 14;
/// So many are quoted when a stage fails.
const N_EXAMPLES: usize = 5;

pub(super) struct Rejections {
    writer: ArrowWriter<File>,
    sources: Vec<String>,
    files: Vec<String>,
    rows: Vec<u64>,
    reasons: Vec<String>,
    examples: Vec<String>,
}

fn failed(error: impl std::fmt::Display) -> StageError {
    StageError::new(format!("`rejected.parquet`: {error}"))
}

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new("source", DataType::Utf8, false),
        Field::new("file", DataType::Utf8, false),
        Field::new("row", DataType::UInt64, false),
        Field::new("reason", DataType::Utf8, false),
    ]))
}

impl Rejections {
    pub(super) fn create(folder: &Path) -> Result<Self, StageError> {
        let path = folder.join("rejected.parquet");
        let file = File::create_new(&path).at(&path)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by("tinylm".to_owned())
            .build();
        Ok(Self {
            writer: ArrowWriter::try_new(file, schema(), Some(properties)).map_err(failed)?,
            sources: Vec::new(),
            files: Vec::new(),
            rows: Vec::new(),
            reasons: Vec::new(),
            examples: Vec::new(),
        })
    }

    pub(super) fn push(&mut self, source: &Source, row: &Rejection) -> Result<(), StageError> {
        if self.examples.len() < N_EXAMPLES && !row.is_filtered {
            let place = format!("`{}`, row {}: {}", source.file, row.row, row.reason);
            self.examples.push(place);
        }
        self.sources.push(source.name.clone());
        self.files.push(source.file.clone());
        self.rows.push(row.row);
        self.reasons.push(row.reason.clone());
        if self.rows.len() == BATCH_ROWS {
            self.flush()?;
        }
        Ok(())
    }

    /// Returns the first of them, one a line.
    pub(super) fn examples(&self) -> String {
        self.examples.join("\n")
    }

    pub(super) fn finish(mut self) -> Result<(), StageError> {
        self.flush()?;
        self.writer.close().map_err(failed)?;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StageError> {
        let texts = |column: &mut Vec<String>| -> ArrayRef {
            Arc::new(StringArray::from(std::mem::take(column)))
        };
        let columns = vec![
            texts(&mut self.sources),
            texts(&mut self.files),
            Arc::new(UInt64Array::from(std::mem::take(&mut self.rows))),
            texts(&mut self.reasons),
        ];
        let batch = RecordBatch::try_new(schema(), columns).map_err(failed)?;
        self.writer.write(&batch).map_err(failed)
    }
}
