//! Which files are read, and how: decided from names and first rows, before any work.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use arrow_array::RecordBatch;
use memchr::memmem;
use tinylm_pipeline::{At, StageError, StageIo};

use super::{
    chunk::{Chunk, Lost, Rows},
    csv,
    read::{self, END_OF_TEXT, Layout, Reader},
    row_groups,
    settings::NormalizeSettings,
    table,
};
use crate::kinds::normalize::{
    cell::Cell,
    shapes::{Format, Shape, recognised, speaker},
};
use crate::shared::{files::files_below, template::Role};

/// So many rows, and bytes of text, are looked at to recognise a shape.
const SNIFF_ROWS: usize = 100;
const SNIFF_BYTES: u64 = 256 << 10;

/// A file with all that is known of it.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// What its documents name as their source; see [`source_name`].
    pub(super) name: String,
    pub(super) file: String,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) layout: Layout,
    pub(super) cells: Cells,
    pub(super) shape: Shape,
    /// The share of the first rows that the shape can read.
    pub(super) sureness: f64,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Json,
    JsonLines,
    Csv,
    Tsv,
    Parquet,
    Text,
}

fn ending(name: &str) -> Option<Ending> {
    let base = name.rsplit('/').next().unwrap_or(name);
    if base.starts_with('.') || is_about(base) {
        return None;
    }
    let (_, ending) = base.rsplit_once('.')?;
    match ending.to_ascii_lowercase().as_str() {
        "json" => Some(Ending::Json),
        "jsonl" | "ndjson" => Some(Ending::JsonLines),
        "csv" => Some(Ending::Csv),
        "tsv" => Some(Ending::Tsv),
        "parquet" => Some(Ending::Parquet),
        "txt" | "text" => Some(Ending::Text),
        _ => None,
    }
}

/// Files that are about a dataset rather than of it.
fn is_about(base: &str) -> bool {
    let stem = base.split('.').next().unwrap_or(base).to_ascii_lowercase();
    [
        "readme",
        "license",
        "licence",
        "dataset_infos",
        "dataset_info",
    ]
    .contains(&stem.as_str())
}

/// Returns every file to read, in the order of the inputs and of their names.
pub(super) fn sources(
    settings: &NormalizeSettings,
    io: &StageIo,
) -> Result<Vec<Source>, StageError> {
    // Both were checked when the settings were.
    let globs: Vec<glob::Pattern> = settings
        .files
        .iter()
        .filter_map(|glob| glob::Pattern::new(glob).ok())
        .collect();
    let inputs = io.inputs("sources");
    let mut sources: Vec<Source> = Vec::new();
    let mut others = Vec::new();
    for (idx, input) in inputs.iter().enumerate() {
        let first = sources.len();
        for (file, path) in files_below(&input.path)? {
            let wanted = globs.is_empty() || globs.iter().any(|glob| glob.matches(&file));
            let Some(ending) = ending(&file).filter(|_| wanted) else {
                others.push(file);
                continue;
            };
            let place = Place {
                file: file.clone(),
                bytes: std::fs::metadata(&path).at(&path)?.len(),
                path,
            };
            match place.recognised(ending, settings)? {
                Some(source) => sources.push(source),
                None => others.push(file),
            }
        }
        let place = (inputs.len() > 1).then_some(idx + 1);
        let name = source_name(place, &sources[first..]);
        for source in &mut sources[first..] {
            source.name.clone_from(&name);
        }
    }
    if sources.is_empty() {
        return Err(nothing_to_read(&others));
    }
    if !others.is_empty() {
        io.info(format!("not read: {}", quoted(&others)));
    }
    for source in &sources {
        io.info(said(source));
    }
    Ok(sources)
}

/// Returns what the documents of an input name as their source: its place in the list,
/// where it is one of several, and the first of its files (`2/dialogs`, `book+5`). All of
/// that is in the key. The name of the stage would read better and is not: two
/// experiments that call it differently share the artifact.
fn source_name(place: Option<usize>, sources: &[Source]) -> String {
    let place = place.map_or_else(String::new, |place| format!("{place}/"));
    let file = sources.first().map_or("", |source| source.file.as_str());
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    match sources.len() {
        0 | 1 => format!("{place}{stem}"),
        n => format!("{place}{stem}+{}", n - 1),
    }
}

fn said(source: &Source) -> String {
    format!(
        "`{}` is read as `{}`, which fits {:.0} % of its first rows",
        source.file,
        source.shape.format.name(),
        100.0 * source.sureness
    )
}

fn quoted(files: &[String]) -> String {
    let shown: Vec<String> = files
        .iter()
        .take(5)
        .map(|file| format!("`{file}`"))
        .collect();
    let more = if files.len() > 5 { ", .." } else { "" };
    format!("{}{more}", shown.join(", "))
}

fn nothing_to_read(others: &[String]) -> StageError {
    let message = if others.is_empty() {
        "the sources hold no files".to_owned()
    } else {
        format!("none of these files is data: {}", quoted(others))
    };
    StageError::new(message)
        .help("`.json`, `.jsonl`, `.csv`, `.tsv`, `.parquet` and `.txt` files are read")
        .is_final()
}

/// Lists files for a message.
pub(super) fn listing(sources: &[Source]) -> String {
    let files: Vec<String> = sources.iter().map(|source| source.file.clone()).collect();
    format!("read were {}", quoted(&files))
}

/// A file of which only the name is known.
struct Place {
    file: String,
    path: PathBuf,
    bytes: u64,
}

impl Place {
    /// Looks into the file; `None` if it is empty, or holds labels rather than text.
    fn recognised(
        self,
        ending: Ending,
        settings: &NormalizeSettings,
    ) -> Result<Option<Source>, StageError> {
        if self.bytes == 0 {
            return Ok(None);
        }
        let shape = Shape {
            format: settings.format,
            columns: settings.columns.clone(),
            roles: settings
                .roles
                .iter()
                .filter_map(|(name, role)| Some((name.clone(), Role::named(role)?)))
                .collect(),
        };
        let head = head_of(&self.path, SNIFF_BYTES)?;
        let in_file = |error| self.placed(error);
        let (layout, cells) = match ending {
            Ending::Json => {
                let layout = json_layout(&self.path, &head, &shape, settings.row_bytes_max)?;
                (layout, Cells::Json)
            }
            Ending::JsonLines => (Layout::Lines, Cells::Json),
            Ending::Csv => (Layout::Csv, csv_cells(&head, settings).map_err(in_file)?),
            Ending::Tsv => (Layout::Lines, tsv_cells(&head, settings).map_err(in_file)?),
            Ending::Parquet => (
                Layout::Parquet,
                Cells::Table {
                    columns: Vec::new(),
                },
            ),
            Ending::Text => {
                let text = String::from_utf8_lossy(&head);
                if shape.format == Format::Auto && is_labels(&text) {
                    return Ok(None);
                }
                return self.text(&text, shape, settings).map(Some);
            }
        };
        self.tabular(layout, cells, shape, settings).map(Some)
    }

    fn tabular(
        self,
        layout: Layout,
        cells: Cells,
        mut shape: Shape,
        settings: &NormalizeSettings,
    ) -> Result<Source, StageError> {
        let first = self.first_rows(layout, &cells, settings)?;
        let n_rows = first.n_rows();
        if n_rows == 0
            && let Some(lost) = &first.lost
        {
            return Err(self.only_lost(lost));
        }
        let parsed = first.parsed(&cells);
        let found = if shape.format == Format::Auto {
            recognised(&parsed, &shape)
        } else {
            let n_read = parsed.iter().filter(|row| shape.read(row).is_ok()).count();
            Some((shape.format, n_read as f64 / parsed.len().max(1) as f64))
        };
        let Some((format, share)) = found else {
            return Err(self.unrecognised(&parsed, n_rows));
        };
        shape.format = format;
        let cells = match cells {
            Cells::Table { .. } => Cells::Table {
                columns: wanted_columns(&shape, &parsed, first.columns.clone()),
            },
            other => other,
        };
        // A row that is no row at all counts against the shape too.
        let sureness = share * parsed.len() as f64 / n_rows.max(1) as f64;
        Ok(self.source(layout, cells, shape, sureness))
    }

    fn source(self, layout: Layout, cells: Cells, shape: Shape, sureness: f64) -> Source {
        Source {
            name: String::new(),
            file: self.file,
            path: self.path,
            bytes: self.bytes,
            layout,
            cells,
            shape,
            sureness: (1000.0 * sureness).round() / 1000.0,
        }
    }

    /// Returns an error about what is in the file with the file's name.
    fn placed(&self, mut error: StageError) -> StageError {
        error.message = format!("`{}`: {}", self.file, error.message);
        error
    }

    fn only_lost(&self, lost: &Lost) -> StageError {
        StageError::new(format!("the shape of `{}` is not recognised", self.file))
            .cause(format!(
                "row {} {}; no other can be read",
                lost.row, lost.reason
            ))
            .help("raise `row_bytes_max`")
            .is_final()
    }

    fn unrecognised(&self, rows: &[Cell], n_rows: usize) -> StageError {
        let error = StageError::new(format!("the shape of `{}` is not recognised", self.file));
        let cause = match rows.first() {
            Some(Cell::Map(entries)) => {
                let keys: Vec<String> = entries
                    .iter()
                    .take(12)
                    .map(|(key, _)| format!("`{key}`"))
                    .collect();
                format!("its first row has {}", keys.join(", "))
            }
            Some(row) => format!("its first row is {}", row.kind()),
            None => format!("none of its first {n_rows} rows can be read"),
        };
        error
            .cause(cause)
            .help("name the shape with `format`, or its columns with `columns`")
            .is_final()
    }

    fn first_rows(
        &self,
        layout: Layout,
        cells: &Cells,
        settings: &NormalizeSettings,
    ) -> Result<FirstRows, StageError> {
        if layout == Layout::Parquet {
            let (columns, table) = row_groups::table_head(&self.path, SNIFF_ROWS)?;
            return Ok(FirstRows {
                columns,
                table,
                ..FirstRows::default()
            });
        }
        let mut reader = Reader::open(&self.path, layout, settings.row_bytes_max as usize, &[])?;
        let skip = usize::from(has_header(cells));
        let mut rows = Vec::new();
        let mut lost = None;
        while let Some(chunk) = reader.next()? {
            lost = lost.or(chunk.rejected.into_iter().next());
            if let Rows::Units { bytes, units } = chunk.rows {
                let wanted = units.into_iter().take(SNIFF_ROWS + skip);
                rows.extend(wanted.map(|unit| bytes[unit.at].to_vec()));
            }
            if rows.len() > skip {
                break;
            }
        }
        rows.drain(..skip.min(rows.len()));
        Ok(FirstRows {
            rows,
            lost,
            ..FirstRows::default()
        })
    }

    fn text(
        self,
        head: &str,
        mut shape: Shape,
        settings: &NormalizeSettings,
    ) -> Result<Source, StageError> {
        let (found, sureness) = text_format(head, &shape);
        let is_table = found == Format::Pairs;
        if matches!(shape.format, Format::Auto | Format::Pairs) && is_table {
            let cells = tsv_cells(head.as_bytes(), settings).map_err(|error| self.placed(error))?;
            return self.tabular(Layout::Lines, cells, shape, settings);
        }
        if shape.format == Format::Auto {
            shape.format = found;
        } else if !shape.format.is_of_text() {
            let message = format!(
                "`{}` is text, which has no `{}`",
                self.file,
                shape.format.name()
            );
            return Err(StageError::new(message).is_final());
        }
        let layout = text_layout(shape.format);
        let sureness = if found == shape.format {
            sureness
        } else {
            self.share_read(layout, &shape, settings)?
        };
        Ok(self.source(layout, Cells::Text, shape, sureness))
    }

    /// Returns the share of the first rows that a shape named by hand can read.
    fn share_read(
        &self,
        layout: Layout,
        shape: &Shape,
        settings: &NormalizeSettings,
    ) -> Result<f64, StageError> {
        let rows = self.first_rows(layout, &Cells::Text, settings)?.rows;
        let is_read = |row: &&Vec<u8>| {
            std::str::from_utf8(row)
                .is_ok_and(|text| shape.read_text(text).is_ok_and(|said| said.is_answered()))
        };
        Ok(rows.iter().filter(is_read).count() as f64 / rows.len().max(1) as f64)
    }
}

fn has_header(cells: &Cells) -> bool {
    match cells {
        Cells::Csv { has_header, .. } | Cells::Tsv { has_header, .. } => *has_header,
        _ => false,
    }
}

/// The first rows of a file, as they stand there.
#[derive(Default)]
struct FirstRows {
    rows: Vec<Vec<u8>>,
    /// Of a Parquet file, in place of `rows`.
    table: Option<RecordBatch>,
    columns: Vec<String>,
    /// The first of the rows that could not be held.
    lost: Option<Lost>,
}

impl FirstRows {
    fn n_rows(&self) -> usize {
        let n_rows = self.table.as_ref().map(RecordBatch::num_rows);
        n_rows.unwrap_or(self.rows.len())
    }

    /// Returns those that can be read at all.
    fn parsed(&self, cells: &Cells) -> Vec<Cell<'_>> {
        if let Some(table) = &self.table {
            return table::rows(table);
        }
        let parse = |row| match cells {
            Cells::Csv { columns, .. } => csv::row(row, columns).ok(),
            Cells::Tsv { columns, .. } => csv::tsv(row, columns).ok(),
            _ => Cell::parse(row).ok(),
        };
        self.rows.iter().filter_map(|row| parse(row)).collect()
    }
}

/// Returns the columns that a shape reads, so that the others are left alone.
fn wanted_columns(shape: &Shape, rows: &[Cell], all: Vec<String>) -> Vec<String> {
    let named = shape.columns.named();
    let wanted: Vec<String> = all
        .iter()
        .filter(|name| named.contains(&name.as_str()) || shape.reads(name))
        .cloned()
        .collect();
    // If what is left is read as before, nothing that matters was left out.
    let same = rows
        .iter()
        .all(|row| is_read_alike(shape, row, &|name| wanted.iter().any(|other| other == name)));
    if same { wanted } else { all }
}

/// Whether a row says the same with no more than the columns that are `kept`.
fn is_read_alike(shape: &Shape, row: &Cell, kept: &dyn Fn(&str) -> bool) -> bool {
    let Cell::Map(entries) = row else {
        return false;
    };
    let entries = entries.iter().filter(|(name, _)| kept(name));
    let kept = Cell::Map(entries.cloned().collect());
    shape.read(&kept) == shape.read(row)
}

fn head_of(path: &Path, n_bytes: u64) -> Result<Vec<u8>, StageError> {
    let mut head = Vec::new();
    let file = File::open(path).at(path)?;
    file.take(n_bytes).read_to_end(&mut head).at(path)?;
    if head.starts_with(b"\xef\xbb\xbf") {
        head.drain(..3);
    }
    Ok(head)
}

/// DailyDialog's acts and emotions: text files of numbers.
fn is_labels(text: &str) -> bool {
    let mut filled = text.chars().filter(|c| !c.is_whitespace()).peekable();
    filled.peek().is_some() && filled.all(|c| c.is_ascii_digit())
}

/// A `.json` file may be an array, an object of rows, or in truth JSON lines.
fn json_layout(
    path: &Path,
    head: &[u8],
    shape: &Shape,
    row_bytes_max: u64,
) -> Result<Layout, StageError> {
    let is_object = |head: &[u8]| head.trim_ascii_start().first() == Some(&b'{');
    if !is_object(head) {
        return Ok(Layout::Json);
    }
    if let Some(layout) = object_layout(head, shape) {
        return Ok(layout);
    }
    let head = head_of(path, row_bytes_max.max(SNIFF_BYTES))?;
    if let Some(layout) = object_layout(&head, shape) {
        return Ok(layout);
    }
    // Too long for a row, but what it begins with tells what it is.
    let is_of_rows = closed(&head)
        .and_then(|start| Some(is_row(&Cell::parse(&start).ok()?, shape)))
        .is_none_or(|is_row| !is_row);
    Ok(if is_of_rows {
        Layout::Json
    } else {
        Layout::Lines
    })
}

/// Returns the layout of a file that begins with an object, if that ends here.
fn object_layout(head: &[u8], shape: &Shape) -> Option<Layout> {
    let head = head.trim_ascii_start();
    let line_end = memchr::memchr(b'\n', head).unwrap_or(head.len());
    if Cell::parse(&head[..line_end]).is_ok_and(|row| is_row(&row, shape)) {
        return Some(Layout::Lines);
    }
    let end = read::value_end(head, false)?;
    Some(match Cell::parse(&head[..end]) {
        Ok(row) if is_row(&row, shape) => Layout::JsonValues,
        _ => Layout::Json,
    })
}

/// Returns the start of a JSON object that goes on, cut behind an element and closed.
fn closed(head: &[u8]) -> Option<Vec<u8>> {
    let head = head.trim_ascii_start();
    let mut open = Vec::new();
    let mut cut = None;
    let mut idx = 0;
    while idx < head.len() {
        match head[idx] {
            b'"' => match read::string_end(head, idx + 1) {
                Some(end) => idx = end - 1,
                None => break,
            },
            b'{' => open.push(b'}'),
            b'[' => open.push(b']'),
            b'}' | b']' => _ = open.pop(),
            // Further in, it would cut a turn or a row in two.
            b',' if open.len() <= 2 => cut = Some((idx, open.clone())),
            _ => {}
        }
        idx += 1;
    }
    let (end, open) = cut?;
    Some([&head[..end], &open.into_iter().rev().collect::<Vec<u8>>()].concat())
}

fn is_row(row: &Cell, shape: &Shape) -> bool {
    if shape.format == Format::Auto {
        recognised(std::slice::from_ref(row), shape).is_some()
    } else {
        shape.read(row).is_ok()
    }
}

const USUAL_NAMES: [&str; 26] = [
    "text",
    "prompt",
    "response",
    "instruction",
    "input",
    "output",
    "question",
    "answer",
    "completion",
    "messages",
    "conversations",
    "conversation",
    "initial_request",
    "query",
    "context",
    "story",
    "content",
    "document",
    "user",
    "assistant",
    "system",
    "id",
    "dialog",
    "utterances",
    "topic_id",
    "facet_id",
];

/// Returns the names of columns and whether the file begins with them.
fn columns(
    first: &[String],
    settings: &NormalizeSettings,
    usually: bool,
) -> Result<(Vec<String>, bool), StageError> {
    let named = settings.columns.named();
    let is_name = |value: &String| {
        let lower = value.trim().to_ascii_lowercase();
        USUAL_NAMES.contains(&lower.as_str()) || named.contains(&value.trim())
    };
    let has_header = settings
        .header
        .unwrap_or_else(|| first.iter().any(is_name) || (usually && named.is_empty()));
    if has_header {
        return Ok((header(first)?, true));
    }
    let names = match first.len() {
        1 => vec!["text".to_owned()],
        2 => vec!["prompt".to_owned(), "response".to_owned()],
        n => (1..=n).map(|idx| format!("column_{idx}")).collect(),
    };
    Ok((names, false))
}

/// Returns the names in a header. Of two equal ones nobody knows which is meant.
fn header(first: &[String]) -> Result<Vec<String>, StageError> {
    let mut names: Vec<String> = Vec::with_capacity(first.len());
    for (idx, name) in first.iter().enumerate() {
        let name = match name.trim() {
            "" => format!("column_{}", idx + 1),
            name => name.to_owned(),
        };
        if names.contains(&name) {
            let message = format!("the column `{name}` stands twice in the header");
            return Err(StageError::new(message)
                .help("rename one of them, or write `header: false` if that line is a row")
                .is_final());
        }
        names.push(name);
    }
    Ok(names)
}

fn first_line(head: &[u8]) -> String {
    let lines = head.split(|byte| *byte == b'\n');
    let mut filled = lines.filter(|line| !line.trim_ascii().is_empty());
    let line = String::from_utf8_lossy(filled.next().unwrap_or_default());
    line.trim_end_matches('\r').to_owned()
}

fn tsv_cells(head: &[u8], settings: &NormalizeSettings) -> Result<Cells, StageError> {
    let first: Vec<String> = first_line(head).split('\t').map(str::to_owned).collect();
    let (columns, has_header) = columns(&first, settings, false)?;
    Ok(Cells::Tsv {
        columns,
        has_header,
    })
}

fn csv_cells(head: &[u8], settings: &NormalizeSettings) -> Result<Cells, StageError> {
    let line = first_line(head);
    let fields = csv::fields(&line)
        .map_err(|error| StageError::new(format!("the header cannot be read: {error}")))?;
    let fields = fields.iter().map(|cell| cell.text().unwrap_or_default());
    let first: Vec<String> = fields.map(str::to_owned).collect();
    let (columns, has_header) = columns(&first, settings, true)?;
    Ok(Cells::Csv {
        columns,
        has_header,
    })
}

/// Returns the shape of a text file and how sure that is.
fn text_format(head: &str, shape: &Shape) -> (Format, f64) {
    let has = |what: &str| memmem::find(head.as_bytes(), what.as_bytes()).is_some();
    let lines: Vec<&str> = head
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    // The last line may be cut off.
    let lines = &lines[..lines
        .len()
        .saturating_sub(usize::from(head.len() as u64 == SNIFF_BYTES))];
    let share = |fits: &dyn Fn(&&&str) -> bool| {
        lines.iter().filter(|line| fits(line)).count() as f64 / lines.len().max(1) as f64
    };
    if has("<|im_start|>") {
        return (Format::Chatml, 1.0);
    }
    if has(END_OF_TEXT) {
        return (Format::Stories, 1.0);
    }
    let candidates = [
        (Format::Eou, share(&|line| line.contains("__eou__"))),
        (Format::Inst, share(&|line| line.contains("[INST]"))),
        (
            Format::Pairs,
            share(&|line| line.matches('\t').count() == 1),
        ),
        (
            Format::Speakers,
            share(&|line| speaker(line, &shape.roles).is_some()),
        ),
    ];
    for (format, share) in candidates {
        // A speaker may go on for some lines.
        let enough = if format == Format::Speakers { 0.5 } else { 0.9 };
        if share >= enough {
            return (format, share);
        }
    }
    (Format::Text, 1.0)
}

fn text_layout(format: Format) -> Layout {
    match format {
        Format::Lines | Format::Inst | Format::Eou => Layout::Lines,
        Format::Stories => Layout::Separated,
        Format::Paragraphs | Format::Speakers => Layout::Paragraphs,
        Format::Chatml => Layout::Chatml,
        _ => Layout::Whole,
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
                if is_new && has_header(&source.cells) {
                    drop_first(&mut chunk);
                }
                return Ok(Some((self.source_idx, chunk)));
            }
            self.source_idx += 1;
        }
        Ok(None)
    }
}

impl Chunks<'_> {
    fn open(&self, source: &Source) -> Result<Reader, StageError> {
        let columns = match &source.cells {
            Cells::Table { columns } => columns.as_slice(),
            _ => &[],
        };
        Reader::open(&source.path, source.layout, self.row_bytes_max, columns)
    }
}

fn drop_first(chunk: &mut Chunk) {
    if let Rows::Units { units, .. } = &mut chunk.rows
        && !units.is_empty()
    {
        units.remove(0);
    }
}
