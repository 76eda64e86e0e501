//! A file whose shape is known, and the chunks of one such file after the other.

use std::path::PathBuf;

use encoding_rs::Encoding;
use tinylm_pipeline::StageError;

use super::{
    chunk::{Chunk, Rows},
    find::Layout,
    read::Reader,
    shapes::Shape,
};

/// A file with all that is known of it.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// What its documents name as their source; see `files::sources`.
    pub(super) name: String,
    pub(super) file: String,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) encoding: &'static Encoding,
    pub(super) layout: Layout,
    pub(super) cells: Cells,
    pub(super) shape: Shape,
    /// The share of the first rows that become documents.
    pub(super) sureness: f64,
    /// Which columns were named that are not there, where no row can be read.
    pub(super) lack: Option<String>,
}

/// How the bytes of a row become values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cells {
    Json,
    Csv {
        columns: Vec<String>,
        has_header: bool,
    },
    Tsv {
        columns: Vec<String>,
        has_header: bool,
    },
    Text,
    /// Already values; only these columns are wanted.
    Table {
        columns: Vec<String>,
    },
}

impl Cells {
    pub(super) fn has_header(&self) -> bool {
        match self {
            Self::Csv { has_header, .. } | Self::Tsv { has_header, .. } => *has_header,
            _ => false,
        }
    }
}

/// All chunks of all files, in order.
pub(super) struct Chunks<'a> {
    sources: &'a [Source],
    row_bytes_max: usize,
    source_idx: usize,
    reader: Option<Reader>,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(sources: &'a [Source], row_bytes_max: usize) -> Self {
        Self {
            sources,
            row_bytes_max,
            source_idx: 0,
            reader: None,
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<(usize, Chunk)>, StageError> {
        while let Some(source) = self.sources.get(self.source_idx) {
            let is_new = self.reader.is_none();
            let mut reader = match self.reader.take() {
                Some(reader) => reader,
                None => self.open(source)?,
            };
            if let Some(mut chunk) = reader.next()? {
                self.reader = Some(reader);
                if is_new && source.cells.has_header() {
                    drop_first(&mut chunk);
                }
                return Ok(Some((self.source_idx, chunk)));
            }
            self.source_idx += 1;
        }
        Ok(None)
    }

    fn open(&self, source: &Source) -> Result<Reader, StageError> {
        let columns = match &source.cells {
            Cells::Table { columns } => columns.as_slice(),
            _ => &[],
        };
        let bytes_max = self.row_bytes_max;
        Reader::open(
            &source.path,
            source.encoding,
            source.layout,
            bytes_max,
            columns,
        )
    }
}

fn drop_first(chunk: &mut Chunk) {
    if let Rows::Units { units, .. } = &mut chunk.rows
        && !units.is_empty()
    {
        units.remove(0);
    }
}
