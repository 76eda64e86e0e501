//! Files as chunks of rows, a few megabytes at a time.
//!
//! A row is found without being understood: a line, a CSV record, an element of a JSON
//! array, a paragraph. Finding is one pass over the bytes on one thread; understanding
//! is left to the threads that get the chunk. So no file is ever loaded whole, a JSON
//! array of any length included, and every row keeps the number it has in its file.

use std::{
    fs::File,
    io::Read,
    ops::Range,
    path::{Path, PathBuf},
};

use memchr::{memchr, memchr_iter, memchr2, memmem};
use tinylm_pipeline::{At, StageError};

use super::{
    chunk::{CHUNK_BYTES, Chunk, Lost, Rows, Unit},
    row_groups::TableReader,
};

/// Raw text without marks is cut at a line's end, or a word's, into documents of about this size.
const TEXT_BYTES: usize = 16 << 20;

const BOM: &[u8] = b"\xef\xbb\xbf";
pub(super) const END_OF_TEXT: &str = "<|endoftext|>";

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

pub(super) enum Reader {
    Units(UnitReader),
    Table(TableReader),
}

impl Reader {
    /// Opens a file; `columns` are those wanted of a table.
    pub(super) fn open(
        path: &Path,
        layout: Layout,
        row_bytes_max: usize,
        columns: &[String],
    ) -> Result<Self, StageError> {
        if layout == Layout::Parquet {
            TableReader::open(path, columns).map(Self::Table)
        } else {
            UnitReader::open(path, layout, row_bytes_max).map(Self::Units)
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<Chunk>, StageError> {
        match self {
            Self::Units(reader) => reader.next(),
            Self::Table(reader) => reader.next(),
        }
    }
}

/// Returns why a row is rejected that has more than so many bytes.
pub(super) fn too_long(n_bytes: usize, row_bytes_max: usize) -> String {
    format!("has {n_bytes} bytes, more than `row_bytes_max` ({row_bytes_max})")
}

/// Finds rows in the bytes of a file.
pub(super) struct UnitReader {
    path: PathBuf,
    file: File,
    layout: Layout,
    row_bytes_max: usize,
    buffer: Vec<u8>,
    at_end: bool,
    /// Bytes of the file that are in the buffer or behind it.
    n_read: u64,
    row: u64,
    json: JsonState,
}

/// Where in a JSON document the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JsonState {
    Start,
    /// Inside the array; in the arrays of an object, `in_object`.
    Array {
        in_object: bool,
    },
    Object,
    End,
}

/// What the bytes at hand hold next.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// A row at this place; whatever is before `next` is used up.
    Row { at: Range<usize>, next: usize },
    /// Nothing, up to here.
    Nothing { next: usize },
    /// More bytes are needed to tell.
    More,
}

impl UnitReader {
    fn open(path: &Path, layout: Layout, row_bytes_max: usize) -> Result<Self, StageError> {
        let mut this = Self {
            path: path.to_owned(),
            file: File::open(path).at(path)?,
            layout,
            row_bytes_max,
            buffer: Vec::new(),
            at_end: false,
            n_read: 0,
            row: 1,
            json: JsonState::Start,
        };
        this.fill()?;
        if this.buffer.starts_with(BOM) {
            this.buffer.drain(..BOM.len());
        }
        if this.buffer.starts_with(b"\xff\xfe") || this.buffer.starts_with(b"\xfe\xff") {
            return Err(this.error("is UTF-16, not UTF-8"));
        }
        Ok(this)
    }

    fn error(&self, what: &str) -> StageError {
        StageError::new(format!("`{}`: {what}", self.path.display())).is_final()
    }

    /// Reads another chunk behind what is in the buffer.
    fn fill(&mut self) -> Result<(), StageError> {
        let n_before = self.buffer.len();
        self.buffer.reserve(CHUNK_BYTES);
        let n_read = (&mut self.file)
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut self.buffer)
            .at(&self.path)?;
        self.n_read += n_read as u64;
        self.at_end = self.buffer.len() - n_before < CHUNK_BYTES;
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Chunk>, StageError> {
        let mut units = Vec::new();
        let mut rejected = Vec::new();
        let mut from = 0;
        loop {
            match self.find(from)? {
                Found::Row { at, next } => {
                    let row = self.count(from, &at, next);
                    let n_bytes = at.len();
                    if n_bytes > self.row_bytes_max {
                        let n_rows = match self.layout {
                            Layout::Csv => n_swallowed(&self.buffer[at]),
                            _ => 1,
                        };
                        rejected.push(self.too_long(row, n_bytes, n_rows));
                    } else {
                        units.push(Unit { row, at });
                    }
                    from = next;
                }
                Found::Nothing { next } => {
                    self.count_skipped(from, next);
                    from = next;
                }
                Found::More if self.at_end => break,
                Found::More if from >= CHUNK_BYTES || (from > 0 && !units.is_empty()) => break,
                Found::More if self.buffer.len() - from > self.row_bytes_max => {
                    let start = from + self.gap(from);
                    self.count_skipped(from, start);
                    let row = self.row;
                    // There are no units here: they would have ended the chunk.
                    let (n_bytes, n_rows) = self.skip_row(start)?;
                    rejected.push(self.too_long(row, n_bytes, n_rows));
                    from = 0;
                }
                Found::More => self.fill()?,
            }
        }
        let rest = self.buffer.split_off(from);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        if units.is_empty() && rejected.is_empty() && self.at_end && self.buffer.is_empty() {
            return Ok(None);
        }
        let position = self.n_read - self.buffer.len() as u64;
        if units.is_empty() && rejected.is_empty() {
            // Nothing but blank space so far.
            return if self.at_end { Ok(None) } else { self.next() };
        }
        Ok(Some(Chunk {
            rows: Rows::Units { bytes, units },
            rejected,
            position,
        }))
    }

    fn too_long(&self, row: u64, n_bytes: usize, n_rows: u64) -> Lost {
        let reason = too_long(n_bytes, self.row_bytes_max);
        let reason = match n_rows {
            1 => reason,
            n_rows => format!("{reason}: {}", open_quote(n_rows)),
        };
        Lost {
            row,
            n_rows,
            reason,
        }
    }

    fn find(&mut self, from: usize) -> Result<Found, StageError> {
        let bytes = &self.buffer[from..];
        let found = match self.layout {
            Layout::Lines => line(bytes, self.at_end),
            Layout::Csv => record(bytes, self.at_end),
            Layout::Paragraphs => paragraph(bytes, self.at_end),
            Layout::Separated => separated(bytes, self.at_end),
            Layout::Chatml => chatml(bytes, self.at_end),
            Layout::Whole => whole(bytes, self.at_end, TEXT_BYTES.min(self.row_bytes_max)),
            Layout::JsonValues => value_among(bytes, self.at_end),
            Layout::Json => {
                let (found, state) = json_row(bytes, self.at_end, self.json)
                    .map_err(|what| self.error(&format!("{what}, near row {}", self.row)))?;
                self.json = state;
                found
            }
            Layout::Parquet => return Err(self.error("is a table, not text")),
        };
        Ok(match found {
            Found::Row { at, next } => Found::Row {
                at: from + at.start..from + at.end,
                next: from + next,
            },
            Found::Nothing { next } => Found::Nothing { next: from + next },
            Found::More => Found::More,
        })
    }

    fn counts_lines(&self) -> bool {
        self.layout != Layout::Json
    }

    /// Returns the number of a row and goes on behind it.
    fn count(&mut self, from: usize, at: &Range<usize>, next: usize) -> u64 {
        if !self.counts_lines() {
            self.row += 1;
            return self.row - 1;
        }
        let row = self.row + newlines(&self.buffer[from..at.start]);
        self.row = row + newlines(&self.buffer[at.start..next]);
        row
    }

    fn count_skipped(&mut self, from: usize, next: usize) {
        if self.counts_lines() {
            self.row += newlines(&self.buffer[from..next]);
        }
    }

    /// Returns how many bytes stand before the next row.
    fn gap(&self, from: usize) -> usize {
        let bytes = &self.buffer[from..];
        match self.layout {
            Layout::Json | Layout::JsonValues => blank(bytes),
            Layout::Csv => 0,
            _ => bytes.len() - bytes.trim_ascii_start().len(),
        }
    }

    /// Passes over a row that is too long to be held; returns its bytes and how many rows it
    /// may have been.
    fn skip_row(&mut self, from: usize) -> Result<(usize, u64), StageError> {
        let mut skip = Skip::new(self.layout, self.json);
        self.buffer.drain(..from);
        let first = self.row;
        let mut n_bytes = 0;
        loop {
            let end = skip.end(&self.buffer);
            let n_skipped = end.unwrap_or(self.buffer.len());
            self.count_skipped(0, n_skipped);
            n_bytes += self.buffer.drain(..n_skipped).len();
            if end.is_some() || self.at_end {
                break;
            }
            self.fill()?;
        }
        if !self.counts_lines() {
            self.row += 1;
        }
        let n_rows = if skip.quotes.is_broken() {
            (self.row - first).max(1)
        } else {
            1
        };
        Ok((n_bytes, n_rows))
    }
}

/// Finds the end of a row byte by byte, so that nothing of it need be kept.
struct Skip {
    layout: Layout,
    depth: usize,
    in_quotes: bool,
    is_escaped: bool,
    /// In a JSON object, whether the row's key has not been passed yet.
    is_key: bool,
    /// Whether there has been nothing but white space since the last line's end.
    is_blank: bool,
    /// How much of the mark that ends the row has been seen.
    n_of_mark: usize,
    quotes: Quotes,
}

impl Skip {
    fn new(layout: Layout, json: JsonState) -> Self {
        Self {
            layout,
            depth: 0,
            in_quotes: false,
            is_escaped: false,
            is_key: layout == Layout::Json && json == JsonState::Object,
            is_blank: false,
            n_of_mark: 0,
            quotes: Quotes::default(),
        }
    }

    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        if matches!(self.layout, Layout::Lines | Layout::Whole | Layout::Parquet) {
            return Some(memchr(b'\n', bytes)? + 1);
        }
        let mut bytes = bytes.iter().enumerate();
        bytes.find_map(|(idx, byte)| Some(idx + self.step(*byte)?))
    }

    /// Returns 1 where the row ends behind this byte, 0 where it ended before it.
    fn step(&mut self, byte: u8) -> Option<usize> {
        match self.layout {
            Layout::Csv => self.quotes.ends_record(byte).then_some(1),
            Layout::Json | Layout::JsonValues => self.json(byte),
            Layout::Paragraphs => self.paragraph(byte),
            Layout::Separated => self.mark(byte),
            // The first of what may stand between dialogues: the rest of one that is cut here
            // is rejected as well, and what comes behind it is not lost.
            Layout::Chatml => {
                let ends = [self.mark(byte), self.paragraph(byte)];
                ends.into_iter().flatten().next()
            }
            Layout::Lines | Layout::Whole | Layout::Parquet => None,
        }
    }

    /// The same rules as [`value_end`]'s.
    fn json(&mut self, byte: u8) -> Option<usize> {
        match byte {
            _ if self.is_escaped => self.is_escaped = false,
            b'\\' if self.in_quotes => self.is_escaped = true,
            b'"' => {
                self.in_quotes = !self.in_quotes;
                let is_value = self.depth == 0 && !self.is_key;
                return (is_value && !self.in_quotes).then_some(1);
            }
            _ if self.in_quotes => {}
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' if self.depth > 1 => self.depth -= 1,
            b'}' | b']' => return Some(self.depth),
            b':' if self.depth == 0 => self.is_key = false,
            b',' if self.depth == 0 => return Some(0),
            _ => {}
        }
        None
    }

    fn paragraph(&mut self, byte: u8) -> Option<usize> {
        match byte {
            b'\n' if self.is_blank => return Some(1),
            b'\n' => self.is_blank = true,
            byte => self.is_blank &= byte.is_ascii_whitespace(),
        }
        None
    }

    fn mark(&mut self, byte: u8) -> Option<usize> {
        let mark = END_OF_TEXT.as_bytes();
        // The mark begins with a byte that it has nowhere else.
        self.n_of_mark = match byte {
            byte if byte == mark[self.n_of_mark] => self.n_of_mark + 1,
            byte => usize::from(byte == mark[0]),
        };
        (self.n_of_mark == mark.len()).then_some(1)
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    memchr_iter(b'\n', bytes).count() as u64
}

/// Leaves out a carriage return at the end.
fn without_return(bytes: &[u8], at: Range<usize>) -> Range<usize> {
    if bytes[at.clone()].ends_with(b"\r") {
        at.start..at.end - 1
    } else {
        at
    }
}

fn line(bytes: &[u8], at_end: bool) -> Found {
    let end = match memchr(b'\n', bytes) {
        Some(end) => end,
        None if at_end && !bytes.is_empty() => bytes.len(),
        None => return Found::More,
    };
    let next = (end + 1).min(bytes.len());
    let at = without_return(bytes, 0..end);
    if bytes[at.clone()].iter().all(u8::is_ascii_whitespace) {
        Found::Nothing { next }
    } else {
        Found::Row { at, next }
    }
}

/// Where in a CSV record one is. A quote opens only at the start of a field: elsewhere it is
/// an inch mark.
struct Quotes {
    is_open: bool,
    at_field_start: bool,
    /// Behind the quote that closed a field, or the first of a doubled one.
    is_closed: bool,
    is_odd: bool,
}

impl Default for Quotes {
    fn default() -> Self {
        Self {
            is_open: false,
            at_field_start: true,
            is_closed: false,
            is_odd: false,
        }
    }
}

impl Quotes {
    /// Takes another byte; returns whether it ends the record.
    fn ends_record(&mut self, byte: u8) -> bool {
        let was_open = self.is_open;
        self.is_odd |= self.is_closed && !matches!(byte, b'"' | b',' | b'\r' | b'\n');
        self.is_open = match byte {
            b'"' => !was_open && (self.at_field_start || self.is_closed),
            _ => was_open,
        };
        self.is_closed = was_open && !self.is_open;
        self.at_field_start = byte == b',';
        byte == b'\n' && !was_open
    }

    /// Whether a quote was left open, or there was something behind one that closed.
    fn is_broken(&self) -> bool {
        self.is_open || self.is_odd
    }
}

/// Whether a quote in a record is never closed, or by the next one that opens.
fn is_broken(record: &[u8]) -> bool {
    let Some(first) = memchr(b'"', record) else {
        return false;
    };
    let mut quotes = Quotes::default();
    for byte in &record[first.saturating_sub(1)..] {
        quotes.ends_record(*byte);
    }
    quotes.is_broken()
}

/// Returns how many rows a record may be that is rejected: where a quote is left open,
/// all lines up to the next one are taken for one record.
pub(super) fn n_swallowed(record: &[u8]) -> u64 {
    if is_broken(record) {
        1 + newlines(record.trim_ascii_end())
    } else {
        1
    }
}

/// Says what became of the lines behind a quote that is not closed.
pub(super) fn open_quote(n_rows: u64) -> String {
    format!("a quote that is not closed takes {n_rows} lines with it")
}

fn record(bytes: &[u8], at_end: bool) -> Found {
    let mut quotes = Quotes::default();
    let end = bytes.iter().position(|byte| quotes.ends_record(*byte));
    let end = match end {
        Some(end) => end,
        None if at_end && !bytes.is_empty() => bytes.len(),
        None => return Found::More,
    };
    let next = (end + 1).min(bytes.len());
    let at = without_return(bytes, 0..end);
    if at.is_empty() {
        Found::Nothing { next }
    } else {
        Found::Row { at, next }
    }
}

fn paragraph(bytes: &[u8], at_end: bool) -> Found {
    let (mut start, mut end, mut from) = (None, 0, 0);
    while from < bytes.len() {
        let line_end = match memchr(b'\n', &bytes[from..]) {
            Some(at) => from + at,
            None if at_end => bytes.len(),
            None => return Found::More,
        };
        let is_blank = bytes[from..line_end].iter().all(u8::is_ascii_whitespace);
        let next = (line_end + 1).min(bytes.len());
        match (start, is_blank) {
            (None, true) => {}
            (None, false) => (start, end) = (Some(from), line_end),
            (Some(_), false) => end = line_end,
            (Some(start), true) => {
                let at = without_return(bytes, start..end);
                return Found::Row { at, next };
            }
        }
        from = next;
    }
    match start {
        Some(start) if at_end => Found::Row {
            at: without_return(bytes, start..end),
            next: bytes.len(),
        },
        None if !bytes.is_empty() => Found::Nothing { next: bytes.len() },
        _ => Found::More,
    }
}

fn trimmed(bytes: &[u8], at: Range<usize>) -> Range<usize> {
    let inner = &bytes[at.clone()];
    let start = inner.len() - inner.trim_ascii_start().len();
    let end = inner.trim_ascii_end().len().max(start);
    at.start + start..at.start + end
}

fn separated(bytes: &[u8], at_end: bool) -> Found {
    let (end, next) = match memmem::find(bytes, END_OF_TEXT.as_bytes()) {
        Some(end) => (end, end + END_OF_TEXT.len()),
        None if at_end && !bytes.is_empty() => (bytes.len(), bytes.len()),
        None => return Found::More,
    };
    let at = trimmed(bytes, 0..end);
    if at.is_empty() {
        Found::Nothing { next }
    } else {
        Found::Row { at, next }
    }
}

fn chatml(bytes: &[u8], at_end: bool) -> Found {
    const START: &[u8] = b"<|im_start|>";
    const END: &[u8] = b"<|im_end|>";
    let mut from = 0;
    while let Some(end) = memmem::find(&bytes[from..], END) {
        let end = from + end + END.len();
        let Some(gap) = memmem::find(&bytes[end..], START) else {
            break;
        };
        let next = end + gap;
        let between = &bytes[end..next];
        let after = &bytes[next + START.len()..];
        if !at_end && after.len() < b"system".len() {
            return Found::More;
        }
        let is_apart = newlines(between) > 1
            || memmem::find(between, END_OF_TEXT.as_bytes()).is_some()
            || after.starts_with(b"system");
        if is_apart {
            return Found::Row { at: 0..end, next };
        }
        from = next;
    }
    let at = trimmed(bytes, 0..bytes.len());
    match bytes[at.clone()].strip_suffix(END_OF_TEXT.as_bytes()) {
        _ if !at_end || bytes.is_empty() => Found::More,
        Some(text) if !text.is_empty() => Found::Row {
            at: trimmed(bytes, at.start..at.start + text.len()),
            next: bytes.len(),
        },
        None if !at.is_empty() => Found::Row {
            at,
            next: bytes.len(),
        },
        _ => Found::Nothing { next: bytes.len() },
    }
}

fn whole(bytes: &[u8], at_end: bool, bytes_max: usize) -> Found {
    if bytes.len() < bytes_max {
        return if at_end && !bytes.is_empty() {
            Found::Row {
                at: 0..bytes.len(),
                next: bytes.len(),
            }
        } else {
            Found::More
        };
    }
    let line_end = memchr::memrchr(b'\n', &bytes[..bytes_max]);
    // Some corpora are one long line.
    match line_end.or_else(|| memchr::memrchr(b' ', &bytes[..bytes_max])) {
        Some(end) => Found::Row {
            at: 0..end + 1,
            next: end + 1,
        },
        None => Found::More,
    }
}

/// Returns where the JSON value that `bytes` begin with ends.
pub(super) fn value_end(bytes: &[u8], at_end: bool) -> Option<usize> {
    let mut depth = 0_usize;
    let mut idx = 0;
    while idx < bytes.len() {
        match bytes[idx] {
            b'"' => idx = string_end(bytes, idx + 1)?,
            b'{' | b'[' => {
                depth += 1;
                idx += 1;
            }
            b'}' | b']' => {
                if depth <= 1 {
                    return Some(idx + depth);
                }
                depth -= 1;
                idx += 1;
            }
            b',' | b' ' | b'\n' | b'\r' | b'\t' if depth == 0 => return Some(idx),
            _ => idx += 1,
        }
        if depth == 0 && idx > 0 && bytes[idx - 1] == b'"' {
            return Some(idx);
        }
    }
    (at_end && depth == 0).then_some(idx)
}

/// Returns where a string ends whose content begins at `from`.
pub(super) fn string_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut idx = from;
    loop {
        idx += memchr2(b'"', b'\\', bytes.get(idx..)?)?;
        if bytes[idx] == b'"' {
            return Some(idx + 1);
        }
        idx += 2;
    }
}

fn blank(bytes: &[u8]) -> usize {
    let is_blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == b',';
    bytes.iter().take_while(|byte| is_blank(byte)).count()
}

fn value_among(bytes: &[u8], at_end: bool) -> Found {
    let start = blank(bytes);
    if start == bytes.len() {
        return if start == 0 {
            Found::More
        } else {
            Found::Nothing { next: start }
        };
    }
    match value_end(&bytes[start..], at_end) {
        // A bracket that closes nothing is a row by itself, and no JSON.
        Some(len) => {
            let end = start + len.max(1);
            Found::Row {
                at: start..end,
                next: end,
            }
        }
        None if at_end => Found::Row {
            at: start..bytes.len(),
            next: bytes.len(),
        },
        None => Found::More,
    }
}

/// Finds the next row of a JSON document, or the way to it.
fn json_row(
    bytes: &[u8],
    at_end: bool,
    state: JsonState,
) -> Result<(Found, JsonState), &'static str> {
    let start = blank(bytes);
    let Some(first) = bytes.get(start) else {
        let is_whole = matches!(state, JsonState::Start | JsonState::End);
        return match start {
            0 if at_end && !is_whole => Err("the JSON ends before it is closed"),
            0 => Ok((Found::More, state)),
            _ => Ok((Found::Nothing { next: start }, state)),
        };
    };
    let skip = |state| Ok((Found::Nothing { next: start + 1 }, state));
    match (state, first) {
        (JsonState::Start, b'[') => skip(JsonState::Array { in_object: false }),
        (JsonState::Start, b'{') => skip(JsonState::Object),
        (JsonState::Start, _) => Err("neither a JSON array nor an object"),
        (JsonState::End, _) => Err("there is something behind the JSON"),
        (JsonState::Array { in_object: true }, b']') => skip(JsonState::Object),
        (JsonState::Array { in_object: false }, b']') | (JsonState::Object, b'}') => {
            skip(JsonState::End)
        }
        (JsonState::Array { .. }, _) => match value_end(&bytes[start..], at_end) {
            Some(0) => Err("a bracket closes what is not open"),
            Some(len) => {
                let at = start..start + len;
                let next = at.end;
                Ok((Found::Row { at, next }, state))
            }
            None if at_end => Err("the JSON ends inside a row"),
            None => Ok((Found::More, state)),
        },
        (JsonState::Object, b'"') => member(bytes, start, at_end),
        (JsonState::Object, _) => Err("an object has a key that is no text"),
    }
}

/// A key with its value: an array is entered, a map is a row, anything else says
/// something about the file.
fn member(bytes: &[u8], start: usize, at_end: bool) -> Result<(Found, JsonState), &'static str> {
    let more = || {
        if at_end {
            Err("the JSON ends before it is closed")
        } else {
            Ok((Found::More, JsonState::Object))
        }
    };
    let Some(colon) = string_end(bytes, start + 1) else {
        return more();
    };
    let gap = |from: usize| {
        let spaces = bytes[from..]
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace());
        from + spaces.count()
    };
    let colon = gap(colon);
    match bytes.get(colon) {
        None => return more(),
        Some(b':') => {}
        Some(_) => return Err("a key has no value"),
    }
    let value = gap(colon + 1);
    match bytes.get(value) {
        None => more(),
        Some(b'[') => Ok((
            Found::Nothing { next: value + 1 },
            JsonState::Array { in_object: true },
        )),
        Some(first) => match value_end(&bytes[value..], at_end) {
            None => more(),
            Some(len) => {
                let next = value + len.max(1);
                let found = if *first == b'{' {
                    Found::Row {
                        at: value..next,
                        next,
                    }
                } else {
                    Found::Nothing { next }
                };
                Ok((found, JsonState::Object))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Seek, SeekFrom, Write},
    };

    use super::*;

    /// Returns `row: content` of every row, and the rejections.
    fn rows(layout: Layout, bytes: &[u8], row_bytes_max: usize) -> Result<Vec<String>, StageError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, bytes).unwrap();
        let mut reader = UnitReader::open(&path, layout, row_bytes_max)?;
        let mut found = Vec::new();
        while let Some(chunk) = reader.next()? {
            let Rows::Units { bytes, units } = chunk.rows else {
                panic!("a table");
            };
            for Lost { row, reason, .. } in chunk.rejected {
                found.push(format!("{row}! {reason}"));
            }
            for unit in units {
                found.push(format!(
                    "{}: {}",
                    unit.row,
                    String::from_utf8_lossy(&bytes[unit.at])
                ));
            }
        }
        Ok(found)
    }

    fn all(layout: Layout, text: &str) -> Vec<String> {
        rows(layout, text.as_bytes(), 1 << 20).unwrap()
    }

    #[test]
    fn lines_keep_their_numbers() {
        assert_eq!(all(Layout::Lines, "\u{feff}a\r\n\n  \nb"), ["1: a", "4: b"]);
        assert_eq!(all(Layout::Lines, ""), [""; 0]);
    }

    #[test]
    fn records_may_hold_line_ends_in_quotes_and_stray_quotes() {
        let csv =
            "a,b\n\"x\ny\",\"say \"\"hi\"\"\n!\"\n5\" pipe,z\n5\"\",z\n\"\"\"\",\"\"\nlast,1\n";
        let wanted = [
            "1: a,b",
            "2: \"x\ny\",\"say \"\"hi\"\"\n!\"",
            "5: 5\" pipe,z",
            "6: 5\"\",z",
            "7: \"\"\"\",\"\"",
            "8: last,1",
        ];
        assert_eq!(all(Layout::Csv, csv), wanted);
    }

    #[test]
    fn paragraphs_and_stories() {
        let text = "\n\none\ntwo\r\n\r\n \nthree\n";
        assert_eq!(all(Layout::Paragraphs, text), ["3: one\ntwo", "7: three"]);
        let text = "Once.\n<|endoftext|>\nTwice.<|endoftext|>\n";
        assert_eq!(all(Layout::Separated, text), ["1: Once.", "3: Twice."]);
        assert_eq!(all(Layout::Whole, "a\n\nb\n"), ["1: a\n\nb\n"]);
    }

    #[test]
    fn elements_of_arrays_and_of_arrays_in_objects() {
        let array = r#" [ {"a": "]}\"" } , "x", [1,2],3 ] "#;
        assert_eq!(
            all(Layout::Json, array),
            [r#"1: {"a": "]}\"" }"#, r#"2: "x""#, "3: [1,2]", "4: 3"]
        );
        let object =
            r#"{"version": 1, "data": [{"a": 1}, {"a": 2}], "name": "x", "more": {"a": 3}}"#;
        assert_eq!(
            all(Layout::Json, object),
            [r#"1: {"a": 1}"#, r#"2: {"a": 2}"#, r#"3: {"a": 3}"#]
        );
        let values = "{\n\"a\": 1}\n{\"a\":\n2} ";
        assert_eq!(
            all(Layout::JsonValues, values),
            ["1: {\n\"a\": 1}", "3: {\"a\":\n2}"]
        );
    }

    #[test]
    fn json_that_is_cut_short_is_an_error() {
        for cut in [
            r#"[{"a": 1}, {"a""#,
            r#"[{"a": 1}"#,
            r#"{"data": [1"#,
            r#"{"data""#,
            "[1] 2",
        ] {
            let error = rows(Layout::Json, cut.as_bytes(), 1 << 20).unwrap_err();
            assert!(error.message.contains("JSON"), "{cut}: {error}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_rejected_and_the_rest_is_read() {
        let long = format!("a\n{}\nb\n", "x".repeat(9 << 20));
        let found = rows(Layout::Lines, long.as_bytes(), 1 << 20).unwrap();
        assert_eq!(
            found,
            [
                "1: a",
                "2! has 9437185 bytes, more than `row_bytes_max` (1048576)",
                "3: b"
            ]
        );
    }

    /// A hole in the file, which takes no room on disk.
    #[test]
    fn a_line_of_a_gigabyte_is_passed_over_and_never_held() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"first\n").unwrap();
        file.seek(SeekFrom::Current(1 << 30)).unwrap();
        file.write_all(b"\nlast\n").unwrap();
        let row_bytes_max = 1 << 20;
        let mut reader = UnitReader::open(&path, Layout::Lines, row_bytes_max).unwrap();
        let (mut rows, mut rejected) = (Vec::new(), Vec::new());
        while let Some(chunk) = reader.next().unwrap() {
            assert!(reader.buffer.capacity() <= row_bytes_max + 3 * CHUNK_BYTES);
            let Rows::Units { bytes, units } = chunk.rows else {
                panic!("a table");
            };
            rejected.extend(chunk.rejected.into_iter().map(|lost| lost.row));
            rows.extend(
                units
                    .into_iter()
                    .map(|unit| (unit.row, bytes[unit.at].to_vec())),
            );
        }
        assert_eq!(rows, [(1, b"first".to_vec()), (3, b"last".to_vec())]);
        assert_eq!(rejected, [2]);
    }

    #[test]
    fn a_row_of_any_layout_that_is_too_long_is_passed_over_to_its_end() {
        let long = "x, y\n".repeat(900_000);
        let json = format!(r#"{{"a": ["}}\"{}"]}}"#, long.replace('\n', " "));
        let layouts = [
            (Layout::Csv, format!("a,b\n1,\"{long}\"\nc,d\n")),
            (Layout::Json, format!(r#"[{{"a": 1}}, {json}, {{"b": 2}}]"#)),
            (
                Layout::Json,
                format!(r#"{{"a": {{"a": 1}}, "c]": {json}, "b": {{"b": 2}}}}"#),
            ),
            (
                Layout::JsonValues,
                format!("{{\"a\": 1}}\n{json}\n{{\"b\": 2}}\n"),
            ),
            (Layout::Paragraphs, format!("one\n\n{long} \r\n\ntwo\n")),
            (
                Layout::Separated,
                format!("one<|endoftext|>{long}<|endoftext|>two"),
            ),
            (
                Layout::Chatml,
                ["one", &long, "two"]
                    .map(|said| format!("<|im_start|>user\n{said}<|im_end|>\n\n"))
                    .concat(),
            ),
        ];
        for (layout, text) in layouts {
            let found = rows(layout, text.as_bytes(), 1 << 20).unwrap();
            let rejected = found
                .iter()
                .filter(|row| row.contains("more than `row_bytes_max`"));
            assert_eq!(
                (found.len(), rejected.count()),
                (3, 1),
                "{layout:?} {found:?}"
            );
            assert!(found.iter().all(|row| row.len() < 70), "{layout:?}");
        }
    }

    #[test]
    fn a_text_of_one_line_is_cut_between_words() {
        let text = "word ".repeat(500_000);
        let found = rows(Layout::Whole, text.as_bytes(), 1 << 20).unwrap();
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|row| row.starts_with("1: word ")));
        assert_eq!(
            found.iter().map(|row| row.len() - 3).sum::<usize>(),
            text.len()
        );
    }

    #[test]
    fn rows_across_chunks_are_whole() {
        let line = format!("{}\n", "y".repeat(99_999));
        let text = line.repeat(100);
        let found = all(Layout::Lines, &text);
        assert_eq!(found.len(), 100);
        assert!(
            found
                .iter()
                .enumerate()
                .all(|(idx, row)| row.len() == format!("{}: ", idx + 1).len() + 99_999)
        );
        let json = format!(
            "[{}]",
            vec![format!("\"{}\"", "z".repeat(99_999)); 100].join(",")
        );
        assert_eq!(all(Layout::Json, &json).len(), 100);
    }

    #[test]
    fn utf_16_is_named() {
        let error = rows(Layout::Lines, b"\xff\xfea\0", 1 << 20).unwrap_err();
        assert!(error.message.contains("UTF-16"), "{error}");
    }
}
