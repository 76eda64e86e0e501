//! Parquet files, some rows at a time.
//!
//! Only the columns that are wanted are read. What a file says of itself is not believed further
//! than its size goes: its footer may be damaged or made to harm, so the rows held at once are
//! bounded whatever it claims, the types are those of Parquet itself (a schema of Arrow that some
//! writers add says the same once more, in a form of its own), and where the reader panics, as it
//! does at some damage, that is an error with the name of the file.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use arrow_array::RecordBatch;
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
        },
    },
    file::metadata::ParquetMetaData,
};
use tinylm_pipeline::{At, StageError};

use super::chunk::{Chunk, Rows};

/// Rows together are handed on up to about this size.
const CHUNK_BYTES: u64 = 8 << 20;
/// And up to so many: the sizes in a footer may be anything.
const CHUNK_ROWS: u64 = 1 << 16;

/// Returns the columns of a file and its first rows.
pub(super) fn table_head(
    path: &Path,
    n_rows: usize,
) -> Result<(Vec<String>, Option<RecordBatch>), StageError> {
    let (columns, mut rows) = contained(path, || {
        let builder = builder(path)?;
        let fields = builder.schema().fields().iter();
        let columns = fields.map(|field| field.name().clone()).collect();
        let rows = builder.with_limit(n_rows).with_batch_size(n_rows).build();
        Ok((columns, rows.map_err(|error| damaged(path, &error))?))
    })?;
    Ok((columns, next(path, &mut rows)?))
}

/// Reads a Parquet file some rows at a time.
pub(super) struct TableReader {
    path: PathBuf,
    rows: ParquetRecordBatchReader,
    n_given: u64,
}

impl TableReader {
    pub(super) fn open(path: &Path, columns: &[String]) -> Result<Self, StageError> {
        let rows = contained(path, || {
            let builder = builder(path)?;
            let fields = builder.schema().fields().iter().enumerate();
            let is_wanted = |name: &String| columns.contains(name);
            let wanted = fields.filter(|(_, field)| is_wanted(field.name()));
            let wanted: Vec<usize> = wanted.map(|(idx, _)| idx).collect();
            let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
            let n_rows = rows_at_once(builder.metadata(), &mask);
            let builder = builder.with_projection(mask).with_batch_size(n_rows);
            builder.build().map_err(|error| damaged(path, &error))
        })?;
        Ok(Self {
            path: path.to_owned(),
            rows,
            n_given: 0,
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<Chunk>, StageError> {
        let Some(table) = next(&self.path, &mut self.rows)? else {
            return Ok(None);
        };
        let first_row = self.n_given + 1;
        self.n_given += table.num_rows() as u64;
        Ok(Some(Chunk {
            rows: Rows::Table { table, first_row },
            rejected: Vec::new(),
            position: self.n_given,
        }))
    }
}

fn builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, StageError> {
    let file = File::open(path).at(path)?;
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
        .map_err(|error| damaged(path, &error))
}

fn next(
    path: &Path,
    rows: &mut ParquetRecordBatchReader,
) -> Result<Option<RecordBatch>, StageError> {
    contained(path, || match rows.next() {
        Some(Err(error)) => Err(damaged(path, &error)),
        Some(Ok(table)) => Ok(Some(table)),
        None => Ok(None),
    })
}

/// Returns how many rows make a chunk, by what the file says of the columns that are read.
fn rows_at_once(metadata: &ParquetMetaData, mask: &ProjectionMask) -> usize {
    let (mut n_rows, mut n_bytes) = (0_u64, 0_u64);
    for group in metadata.row_groups() {
        n_rows = n_rows.saturating_add(group.num_rows().unsigned_abs());
        for (idx, column) in group.columns().iter().enumerate() {
            if mask.leaf_included(idx) {
                n_bytes = n_bytes.saturating_add(column.uncompressed_size().unsigned_abs());
            }
        }
    }
    let bytes_each = (n_bytes / n_rows.max(1)).max(1);
    (CHUNK_BYTES / bytes_each).clamp(1, CHUNK_ROWS) as usize
}

/// Turns a panic of the reader into an error that names the file.
fn contained<T>(
    path: &Path,
    read: impl FnOnce() -> Result<T, StageError>,
) -> Result<T, StageError> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(damaged(path, &"the reader of Parquet gave up")))
}

fn damaged(path: &Path, error: &dyn std::fmt::Display) -> StageError {
    StageError::new(format!("`{}` cannot be read as Parquet", path.display()))
        .cause(error)
        .help("it may be cut short or damaged: fetch it again")
        .is_final()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_reader_is_an_error_that_names_the_file() {
        let read = || -> Result<(), StageError> { panic!("as on a file nobody thought of") };
        let error = contained(Path::new("in/a.parquet"), read).unwrap_err();
        assert_eq!(error.message, "`in/a.parquet` cannot be read as Parquet");
    }
}
