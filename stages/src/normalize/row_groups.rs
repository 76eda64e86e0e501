//! Parquet files, a few row groups at a time.
//!
//! polars reads them, and only the columns that are wanted: it knows few of the types
//! that a file may hold, and panics at some others. So the schema is looked at first.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use polars::prelude::{
    ArrowDataType, ArrowSchema, DataFrame, FileMetadataRef, ParquetReader, PolarsError, SerReader,
};
use tinylm_pipeline::{At, StageError};

use super::read::{Chunk, Rows};

/// The columns of a Parquet file, told apart by their types.
#[derive(Debug, Default)]
pub(super) struct Columns {
    pub(super) readable: Vec<String>,
    pub(super) unreadable: Vec<Unreadable>,
}

/// A column that no row can be read with.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) name: String,
    /// The type that it has or holds.
    pub(super) of_type: String,
}

impl Columns {
    fn of(schema: &ArrowSchema) -> Self {
        let mut columns = Self::default();
        for (name, field) in schema.iter() {
            let name = name.to_string();
            match unreadable(&field.dtype) {
                None => columns.readable.push(name),
                Some(of_type) => columns.unreadable.push(Unreadable { name, of_type }),
            }
        }
        columns
    }
}

/// Returns the type in `dtype` that polars, as it is built here, cannot make values of.
fn unreadable(dtype: &ArrowDataType) -> Option<String> {
    use ArrowDataType as T;
    match dtype {
        T::Null | T::Boolean | T::Float32 | T::Float64 => None,
        T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::UInt32 | T::UInt64 => None,
        T::Date32 | T::Date64 | T::Time32(_) | T::Time64(_) => None,
        T::Timestamp(..) | T::Duration(_) => None,
        T::Utf8 | T::LargeUtf8 | T::Utf8View => None,
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => None,
        T::Dictionary(_, values, _) => unreadable(values),
        T::List(items) | T::LargeList(items) | T::Map(items, _) => unreadable(&items.dtype),
        T::Struct(fields) => fields.iter().find_map(|field| unreadable(&field.dtype)),
        T::Decimal(digits, scale) => Some(format!("decimal({digits}, {scale})")),
        T::FixedSizeList(items, n) => {
            let items = unreadable(&items.dtype)
                .unwrap_or_else(|| format!("{:?}", items.dtype).to_ascii_lowercase());
            Some(format!("list of {n} {items}"))
        }
        other => Some(format!("{other:?}").to_ascii_lowercase()),
    }
}

/// Returns the columns of a file and its first rows, of those that can be read.
pub(super) fn table_head(
    path: &Path,
    n_rows: usize,
) -> Result<(Columns, Option<DataFrame>), StageError> {
    let columns = columns(path)?;
    if columns.readable.is_empty() {
        return Ok((columns, None));
    }
    let mut reader = TableReader::open(path, &columns.readable)?;
    if let Some(slice) = reader.slices.first_mut() {
        slice.n_rows = slice.n_rows.min(n_rows);
    }
    let table = reader.next()?.and_then(|chunk| match chunk.rows {
        Rows::Table { table, .. } => Some(table),
        Rows::Units { .. } => None,
    });
    Ok((columns, table))
}

fn columns(path: &Path) -> Result<Columns, StageError> {
    let file = File::open(path).at(path)?;
    let schema = ParquetReader::new(file)
        .schema()
        .map_err(|error| table_error(path, &error))?;
    Ok(Columns::of(&schema))
}

/// Reads a Parquet file a few row groups, or a part of a very large one, at a time, and
/// hands on a part of that.
pub(super) struct TableReader {
    path: PathBuf,
    metadata: FileMetadataRef,
    columns: Vec<String>,
    slices: Vec<Slice>,
    slice_idx: usize,
    /// What has been read and not yet handed on, and the rows of a chunk of it.
    pending: Option<(DataFrame, usize)>,
    n_given: u64,
}

/// Rows that are read at once.
#[derive(Debug, Clone, Copy)]
struct Slice {
    first: usize,
    n_rows: usize,
    n_bytes: usize,
}

/// Row groups together are read at once up to this size.
const SLICE_BYTES: usize = 8 << 20;
/// A row group that is larger than this is read in parts.
const GROUP_BYTES_MAX: usize = 64 << 20;

fn slices(metadata: &FileMetadataRef) -> Vec<Slice> {
    let mut slices: Vec<Slice> = Vec::new();
    let mut first = 0;
    for group in &metadata.row_groups {
        let (n_rows, n_bytes) = (group.num_rows(), group.total_byte_size());
        match slices.last_mut() {
            Some(slice) if slice.n_bytes + n_bytes <= SLICE_BYTES => {
                slice.n_rows += n_rows;
                slice.n_bytes += n_bytes;
            }
            _ => slices.extend(parts(first, n_rows, n_bytes)),
        }
        first += n_rows;
    }
    slices.retain(|slice| slice.n_rows > 0);
    slices
}

fn parts(first: usize, n_rows: usize, n_bytes: usize) -> impl Iterator<Item = Slice> {
    let n_parts = n_bytes.div_ceil(GROUP_BYTES_MAX).max(1);
    let n_rows_each = n_rows.div_ceil(n_parts).max(1);
    (0..n_rows).step_by(n_rows_each).map(move |row| Slice {
        first: first + row,
        n_rows: n_rows_each.min(n_rows - row),
        n_bytes: n_bytes / n_parts,
    })
}

impl TableReader {
    pub(super) fn open(path: &Path, columns: &[String]) -> Result<Self, StageError> {
        let file = File::open(path).at(path)?;
        let mut reader = ParquetReader::new(file);
        let metadata = reader
            .get_metadata()
            .map_err(|error| table_error(path, &error))?
            .clone();
        Ok(Self {
            path: path.to_owned(),
            slices: slices(&metadata),
            metadata,
            columns: columns.to_vec(),
            slice_idx: 0,
            pending: None,
            n_given: 0,
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<Chunk>, StageError> {
        if self.pending.is_none() && !self.read_slice()? {
            return Ok(None);
        }
        let Some((table, n_rows)) = self.pending.take() else {
            return Ok(None);
        };
        let (head, rest) = table.split_at(n_rows.min(table.height()) as i64);
        if rest.height() > 0 {
            self.pending = Some((rest, n_rows));
        }
        let first_row = self.n_given + 1;
        self.n_given += head.height() as u64;
        Ok(Some(Chunk {
            rows: Rows::Table {
                table: head,
                first_row,
            },
            rejected: Vec::new(),
            position: self.n_given,
        }))
    }

    fn read_slice(&mut self) -> Result<bool, StageError> {
        let Some(slice) = self.slices.get(self.slice_idx).copied() else {
            return Ok(false);
        };
        self.slice_idx += 1;
        let file = File::open(&self.path).at(&self.path)?;
        let mut reader = ParquetReader::new(file)
            .with_slice(Some((slice.first, slice.n_rows)))
            .with_columns(Some(self.columns.clone()));
        reader.set_metadata(self.metadata.clone());
        let table = reader
            .finish()
            .map_err(|error| table_error(&self.path, &error))?;
        let n_parts = slice.n_bytes.div_ceil(SLICE_BYTES).max(1);
        self.pending = Some((table, slice.n_rows.div_ceil(n_parts)));
        Ok(true)
    }
}

fn table_error(path: &Path, error: &PolarsError) -> StageError {
    StageError::new(format!("`{}` cannot be read as Parquet", path.display()))
        .cause(error)
        .help("it may be cut short or damaged: fetch it again")
        .is_final()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_very_large_row_group_is_read_in_parts() {
        let read: Vec<Slice> = parts(100, 1000, 5 * GROUP_BYTES_MAX / 2).collect();
        let places: Vec<(usize, usize)> = read.iter().map(|s| (s.first, s.n_rows)).collect();
        assert_eq!(places, [(100, 334), (434, 334), (768, 332)]);
        assert_eq!(parts(0, 10, 5).count(), 1);
        assert_eq!(parts(0, 0, 0).count(), 0);
    }
}
