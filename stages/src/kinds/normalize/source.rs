//! A file whose shape is known.

use std::path::PathBuf;

use encoding_rs::Encoding;

use super::{cell::Cell, csv, find::Layout, shapes::Shape};

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
        /// Whether every field is in quotes.
        is_quoted: bool,
    },
    Text,
    /// Already values; only these columns are wanted.
    Table {
        columns: Vec<String>,
    },
}

impl Cells {
    /// Returns a row, or why it is none.
    pub(super) fn parse<'a>(&self, row: &'a [u8]) -> Result<Cell<'a>, String> {
        match self {
            Self::Csv { columns, .. } => csv::row(row, columns),
            Self::Tsv {
                columns, is_quoted, ..
            } => csv::tsv(row, columns, *is_quoted),
            _ => Cell::parse(row),
        }
    }

    /// Whether the first row of the file is none.
    pub(super) fn has_header(&self) -> bool {
        match self {
            Self::Csv { has_header, .. } | Self::Tsv { has_header, .. } => *has_header,
            _ => false,
        }
    }
}
