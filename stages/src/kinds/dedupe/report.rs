//! `duplicates.parquet`: what was dropped, in whose favour, and why.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{ArrayRef, FixedSizeBinaryArray, Float32Array, RecordBatch, StringArray};
use arrow_buffer::Buffer;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::WriterProperties,
};
use tinylm_pipeline::{At, StageError};

use super::{Verdict, Why};
use crate::shared::documents::Digest;

const ROWS_HELD: usize = 1 << 16;

pub(super) struct DuplicatesWriter {
    path: PathBuf,
    writer: ArrowWriter<File>,
    ids: Vec<u8>,
    kept_ids: Vec<u8>,
    similarities: Vec<f32>,
    reasons: Vec<&'static str>,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::FixedSizeBinary(32), false),
        Field::new("kept_id", DataType::FixedSizeBinary(32), false),
        Field::new("similarity", DataType::Float32, false),
        Field::new("reason", DataType::Utf8, false),
    ]))
}

impl DuplicatesWriter {
    pub(super) fn create(path: &Path) -> Result<Self, StageError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by("tinylm".to_owned())
            .build();
        let file = File::create_new(path).at(path)?;
        let writer = ArrowWriter::try_new(file, schema(), Some(properties));
        Ok(Self {
            path: path.to_owned(),
            writer: writer.map_err(|error| complaint(path, &error))?,
            ids: Vec::new(),
            kept_ids: Vec::new(),
            similarities: Vec::new(),
            reasons: Vec::new(),
        })
    }

    pub(super) fn push(
        &mut self,
        id: Digest,
        kept: Digest,
        verdict: &Verdict,
    ) -> Result<(), StageError> {
        self.ids.extend_from_slice(&id);
        self.kept_ids.extend_from_slice(&kept);
        self.similarities.push(verdict.similarity);
        self.reasons.push(match verdict.why {
            Why::Exact => "exact",
            Why::Near => "near",
            Why::Contamination => "contamination",
        });
        if self.reasons.len() >= ROWS_HELD {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StageError> {
        let digests = |bytes: &mut Vec<u8>| -> ArrayRef {
            let bytes = Buffer::from_vec(std::mem::take(bytes));
            Arc::new(FixedSizeBinaryArray::new(32, bytes, None))
        };
        let columns: Vec<ArrayRef> = vec![
            digests(&mut self.ids),
            digests(&mut self.kept_ids),
            Arc::new(Float32Array::from(std::mem::take(&mut self.similarities))),
            Arc::new(StringArray::from(std::mem::take(&mut self.reasons))),
        ];
        let batch = RecordBatch::try_new(schema(), columns)
            .map_err(|error| StageError::new(error.to_string()))?;
        self.writer
            .write(&batch)
            .map_err(|error| complaint(&self.path, &error))
    }

    pub(super) fn finish(mut self) -> Result<(), StageError> {
        self.flush()?;
        let Self { path, writer, .. } = self;
        writer.close().map_err(|error| complaint(&path, &error))?;
        Ok(())
    }
}

fn complaint(path: &Path, error: &ParquetError) -> StageError {
    StageError::new(format!("`{}`: {error}", path.display()))
}
