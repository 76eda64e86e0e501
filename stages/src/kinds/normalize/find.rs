//! Where rows end, found without understanding them: one finder for each layout of a file.

mod found;
mod json;
mod records;
mod text;

pub(super) use found::{Finder, Found};
pub(super) use json::{string_end, value_end};
pub(super) use records::{n_swallowed, open_quote};
pub(super) use text::END_OF_TEXT;

/// Raw text without marks is cut at a line's end, or a word's, into documents of about this size.
const TEXT_BYTES: usize = 16 << 20;

/// How rows are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// A row is a line: JSON lines, tab-separated values, text.
    Lines,
    /// A row is a record of comma-separated values, which may hold line ends in quotes.
    Csv,
    /// A row is a JSON value: an element of an array, or of the arrays in an object.
    Json,
    /// Several JSON values one after the other, each on any number of lines.
    JsonValues,
    /// A row stands between blank lines.
    Paragraphs,
    /// A row stands between `<|endoftext|>` marks.
    Separated,
    /// A row is the turns between two system prompts, blank lines or `<|endoftext|>` marks.
    Chatml,
    /// The file is one row, unless it is too long for one.
    Whole,
    /// Some rows at a time.
    Parquet,
}

impl Layout {
    /// Returns what finds its rows; a table has none to find.
    pub(super) fn finder(self, row_bytes_max: usize) -> Option<Box<dyn Finder>> {
        Some(match self {
            Self::Lines => Box::new(text::Lines::new(false)),
            Self::Paragraphs => Box::new(text::Lines::new(true)),
            Self::Csv => Box::new(records::Records::default()),
            Self::Json => Box::new(json::Json::default()),
            Self::JsonValues => Box::new(json::Json::values()),
            Self::Separated => Box::new(text::Separated),
            Self::Chatml => Box::new(text::Dialogues::default()),
            Self::Whole => Box::new(text::Whole {
                bytes_max: TEXT_BYTES.min(row_bytes_max),
            }),
            Self::Parquet => return None,
        })
    }
}
