//! The first rows of a file, by which its shape is recognised.

use std::path::Path;

use arrow_array::RecordBatch;
use encoding_rs::Encoding;
use tinylm_pipeline::StageError;

use super::{
    cell::Cell,
    chunk::{Lost, Rows},
    find::Layout,
    input::Input,
    read::Reader,
    row_groups,
    source::Cells,
    table,
};

/// So many rows, and bytes of text, are looked at.
const SNIFF_ROWS: usize = 100;
pub(super) const SNIFF_BYTES: u64 = 256 << 10;

/// The first rows of a file, as they stand there.
#[derive(Default)]
pub(super) struct FirstRows {
    pub(super) rows: Vec<Vec<u8>>,
    /// Of a Parquet file, in place of `rows`.
    table: Option<RecordBatch>,
    pub(super) columns: Vec<String>,
    /// The first of the rows that could not be held.
    pub(super) lost: Option<Lost>,
}

impl FirstRows {
    pub(super) fn read(
        path: &Path,
        encoding: &'static Encoding,
        layout: Layout,
        cells: &Cells,
        row_bytes_max: usize,
    ) -> Result<Self, StageError> {
        if layout == Layout::Parquet {
            let (columns, table) = row_groups::table_head(path, SNIFF_ROWS)?;
            return Ok(Self {
                columns,
                table,
                ..Self::default()
            });
        }
        let mut reader = Reader::open(path, encoding, layout, row_bytes_max, &[])?;
        let n_header = usize::from(cells.has_header());
        let mut first = Self::default();
        while first.rows.len() <= n_header
            && let Some(chunk) = reader.next()?
        {
            first.lost = first.lost.or(chunk.rejected.into_iter().next());
            if let Rows::Units { bytes, units } = chunk.rows {
                let wanted = units.into_iter().take(SNIFF_ROWS + n_header);
                let wanted = wanted.map(|unit| bytes[unit.at].to_vec());
                first.rows.extend(wanted);
            }
        }
        first.rows.drain(..n_header.min(first.rows.len()));
        Ok(first)
    }

    pub(super) fn n_rows(&self) -> usize {
        let n_rows = self.table.as_ref().map(RecordBatch::num_rows);
        n_rows.unwrap_or(self.rows.len())
    }

    /// Returns those that can be read at all.
    pub(super) fn parsed(&self, cells: &Cells) -> Vec<Cell<'_>> {
        if let Some(table) = &self.table {
            return table::rows(table);
        }
        let parse = |row| cells.parse(row).ok();
        self.rows.iter().filter_map(|row| parse(row)).collect()
    }
}

/// Returns what a file begins with, as UTF-8 if it is text at all.
pub(super) fn head_of(
    path: &Path,
    encoding: &'static Encoding,
    n_bytes: u64,
) -> Result<Vec<u8>, StageError> {
    let mut head = Vec::new();
    Input::open(path, encoding)?.read(n_bytes as usize, &mut head)?;
    Ok(head)
}
