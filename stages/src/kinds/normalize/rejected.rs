//! `rejected.parquet`: what was left out, where it stood and why.

use std::{fs::File, path::Path, sync::Arc};

use arrow_array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use tinylm_pipeline::{At, StageError};

use super::{files::Source, rows::Rejection};

const BATCH_ROWS: usize = 1 << 14;
/// So many reasons are quoted when a stage fails.
const N_EXAMPLES: usize = 10;
/// So many are told apart; reasons may quote what is in the rows.
const REASONS_MAX: usize = 100;

pub(super) struct Rejections {
    writer: ArrowWriter<File>,
    sources: Vec<String>,
    files: Vec<String>,
    rows: Vec<u64>,
    reasons: Vec<String>,
    examples: Vec<Example>,
    /// How many more were rejected, for reasons that are not among the examples.
    n_others: u64,
}

/// The first row that was rejected for a reason.
struct Example {
    /// The reason without its numbers, which differ from row to row.
    reason: String,
    place: String,
    n_more: u64,
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

impl Example {
    fn said(&self) -> String {
        match self.n_more {
            0 => self.place.clone(),
            n => format!("{}, and {n} more like it", self.place),
        }
    }
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
            n_others: 0,
        })
    }

    pub(super) fn push(&mut self, source: &Source, row: &Rejection) -> Result<(), StageError> {
        if !row.is_filtered {
            self.take_example(source, row);
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

    fn take_example(&mut self, source: &Source, row: &Rejection) {
        let reason: String = row.reason.chars().filter(|c| !c.is_ascii_digit()).collect();
        let known = self.examples.iter_mut();
        if let Some(example) = known.into_iter().find(|known| known.reason == reason) {
            example.n_more += 1;
        } else if self.examples.len() < REASONS_MAX {
            self.examples.push(Example {
                reason,
                place: format!("`{}`, row {}: {}", source.file, row.row, row.reason),
                n_more: 0,
            });
        } else {
            self.n_others += 1;
        }
    }

    /// Returns a row for every reason, the most frequent first, one a line.
    pub(super) fn examples(&self) -> String {
        let mut examples: Vec<&Example> = self.examples.iter().collect();
        examples.sort_by_key(|example| std::cmp::Reverse(example.n_more));
        let (shown, others) = examples.split_at(examples.len().min(N_EXAMPLES));
        let mut lines: Vec<String> = shown.iter().map(|example| example.said()).collect();
        let n_others: u64 = others.iter().map(|example| 1 + example.n_more).sum();
        match n_others + self.n_others {
            0 => {}
            n => lines.push(format!("and {n} for other reasons")),
        }
        lines.join("\n")
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
