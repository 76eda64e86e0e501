//! Which files are read, and how: decided from names and first rows, before any work.

use std::{borrow::Cow, path::PathBuf};

use encoding_rs::{Encoding, UTF_8};
use tinylm_pipeline::{
    At, StageError, StageIo,
    parts::{FileEntry, Whole},
};

use super::{
    auto::{recognised, share, text_format, text_layout, why_not},
    cell::Cell,
    chunk::Lost,
    find::Layout,
    first_rows::{FirstRows, SNIFF_BYTES, head_of},
    header::{csv_cells, tsv_cells},
    input,
    json_layout::json_layout,
    rows::check_content,
    said::Said,
    settings::NormalizeSettings,
    shapes::{Format, Shape},
    source::{Cells, Source},
};
use crate::shared::{files::files_below, partition::NamedFile, template::Role};

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

/// What stands beside the messages in an export of Slack.
fn is_about_slack(file: &str) -> bool {
    let names = [
        "users.json",
        "channels.json",
        "groups.json",
        "dms.json",
        "mpims.json",
        "integration_logs.json",
        "canvases.json",
    ];
    names.contains(&file.rsplit('/').next().unwrap_or(file))
}

/// The files that these settings want.
pub(super) struct Wanted(Vec<glob::Pattern>);

impl Wanted {
    pub(super) fn new(settings: &NormalizeSettings) -> Self {
        // They were checked when the settings were.
        let globs = settings.files.iter();
        Self(
            globs
                .filter_map(|glob| glob::Pattern::new(glob).ok())
                .collect(),
        )
    }

    pub(super) fn takes(&self, file: &str) -> bool {
        self.ending(file).is_some()
    }

    fn ending(&self, file: &str) -> Option<Ending> {
        let wanted = self.0.is_empty() || self.0.iter().any(|glob| glob.matches(file));
        ending(file).filter(|_| wanted)
    }
}

/// Returns every file to read, in the order of the inputs and of their names.
pub(super) fn sources(
    settings: &NormalizeSettings,
    io: &StageIo,
) -> Result<Vec<Source>, StageError> {
    let wanted = Wanted::new(settings);
    let inputs = io.inputs("sources");
    let mut sources: Vec<Source> = Vec::new();
    let (mut others, mut empty) = (Vec::new(), Vec::new());
    for (idx, input) in inputs.iter().enumerate() {
        let first = sources.len();
        for (file, path) in files_below(&input.path)? {
            let Some(ending) = wanted.ending(&file) else {
                others.push(file);
                continue;
            };
            let place = Place::new(file.clone(), path, settings)?;
            if place.bytes == 0 {
                empty.push(file);
                continue;
            }
            match place.recognised(ending)? {
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
        return Err(nothing_to_read(&others, &empty));
    }
    for (what, files) in [("not read", &others), ("empty", &empty)] {
        if !files.is_empty() {
            io.info(format!("{what}: {}", quoted(files)));
        }
    }
    for source in &sources {
        io.info(said(source));
    }
    Ok(sources)
}

/// Returns those of a part's files that hold rows, each a source of its own.
pub(super) fn sources_of_part(
    settings: &NormalizeSettings,
    io: &StageIo,
    files: &[NamedFile],
) -> Result<Vec<Source>, StageError> {
    let mut sources = Vec::new();
    for NamedFile { place, name, path } in files {
        let Some(ending) = ending(name) else {
            continue;
        };
        let file = Place::new(name.clone(), path.clone(), settings)?;
        if let Some(mut source) = file.recognised(ending)? {
            source.name = source_name(*place, std::slice::from_ref(&source));
            io.info(said(&source));
            sources.push(source);
        }
    }
    Ok(sources)
}

/// Says why nothing of some artifacts can be read.
pub(super) fn nothing_in(inputs: &[Whole], wanted: &Wanted) -> StageError {
    let files = inputs.iter().flat_map(|input| &input.files);
    let (empty, others): (Vec<_>, Vec<_>) = files.partition(|file| wanted.takes(&file.path));
    let names = |files: Vec<&FileEntry>| -> Vec<String> {
        files.into_iter().map(|file| file.path.clone()).collect()
    };
    nothing_to_read(&names(others), &names(empty))
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

fn quoted(names: &[String]) -> String {
    const SHOWN_MAX: usize = 12;
    let shown = names.iter().take(SHOWN_MAX);
    let shown: Vec<String> = shown.map(|name| format!("`{name}`")).collect();
    let more = if names.len() > SHOWN_MAX { ", .." } else { "" };
    format!("{}{more}", shown.join(", "))
}

fn nothing_to_read(others: &[String], empty: &[String]) -> StageError {
    let message = match (others, empty) {
        ([], []) => "the sources hold no files".to_owned(),
        ([], [file]) => format!("`{file}` is empty"),
        ([], empty) => format!("these files are empty: {}", quoted(empty)),
        (others, []) => format!("none of these files is data: {}", quoted(others)),
        (others, empty) => {
            let (others, empty) = (quoted(others), quoted(empty));
            format!("none of these files is data: {others}; and these are empty: {empty}")
        }
    };
    if others.is_empty() && !empty.is_empty() {
        let help = "put text or rows into it, or name other files";
        return StageError::new(message).help(help).is_final();
    }
    StageError::new(message)
        .help("`.json`, `.jsonl`, `.csv`, `.tsv`, `.parquet` and `.txt` files are read")
        .is_final()
}

/// Lists files for a message.
pub(super) fn listing(files: &[String]) -> String {
    format!("read were {}", quoted(files))
}

/// A file of which only the name is known.
struct Place<'a> {
    file: String,
    path: PathBuf,
    bytes: u64,
    encoding: &'static Encoding,
    settings: &'a NormalizeSettings,
}

impl<'a> Place<'a> {
    fn new(
        file: String,
        path: PathBuf,
        settings: &'a NormalizeSettings,
    ) -> Result<Self, StageError> {
        Ok(Self {
            file,
            bytes: std::fs::metadata(&path).at(&path)?.len(),
            path,
            // It was checked when the settings were.
            encoding: input::encoding(&settings.encoding).unwrap_or(UTF_8),
            settings,
        })
    }

    /// Looks into the file; `None` if it holds labels rather than text.
    fn recognised(self, ending: Ending) -> Result<Option<Source>, StageError> {
        let settings = self.settings;
        let shape = Shape {
            format: settings.format,
            columns: settings.columns.clone(),
            roles: settings
                .roles
                .iter()
                .filter_map(|(name, role)| Some((name.clone(), Role::named(role)?)))
                .collect(),
        };
        if ending == Ending::Parquet {
            let columns = Vec::new();
            let cells = Cells::Table { columns };
            return self.tabular(Layout::Parquet, cells, shape);
        }
        let (path, encoding) = (&self.path, self.encoding);
        let head = head_of(path, encoding, SNIFF_BYTES)?;
        let in_file = |error| self.placed(error);
        let (layout, cells) = match ending {
            Ending::Csv => (Layout::Csv, csv_cells(&head, settings).map_err(in_file)?),
            Ending::Tsv => (Layout::Lines, tsv_cells(&head, settings).map_err(in_file)?),
            Ending::Text => {
                let text = String::from_utf8_lossy(&head);
                if shape.format == Format::Auto && is_labels(&text) {
                    return Ok(None);
                }
                return self.text(&text, shape);
            }
            Ending::Json => {
                let bytes_max = settings.row_bytes_max;
                let layout = json_layout(path, encoding, &head, &shape, bytes_max)?;
                (layout, Cells::Json)
            }
            Ending::JsonLines | Ending::Parquet => (Layout::Lines, Cells::Json),
        };
        self.tabular(layout, cells, shape)
    }

    fn tabular(
        self,
        layout: Layout,
        cells: Cells,
        mut shape: Shape,
    ) -> Result<Option<Source>, StageError> {
        let first = self.first_rows(layout, &cells)?;
        let n_rows = first.n_rows();
        if n_rows == 0
            && let Some(lost) = &first.lost
        {
            return Err(self.only_lost(lost));
        }
        let parsed = first.parsed(&cells);
        let lack = self.lack(&parsed, &first.columns, &cells);
        if shape.format == Format::Auto {
            let Some(format) = recognised(&parsed, &shape) else {
                return match is_about_slack(&self.file) {
                    true => Ok(None),
                    false => Err(self.unrecognised(&parsed, n_rows, &shape, lack)),
                };
            };
            shape.format = format;
        }
        let cells = match cells {
            Cells::Table { .. } => Cells::Table {
                columns: wanted_columns(&shape, &parsed, first.columns.clone()),
            },
            other => other,
        };
        let is_kept = |row: &&Cell| shape.read(row).is_ok_and(|said| self.keeps(&said));
        let n_kept = match shape.format.is_gathered() {
            // Alone it is no document.
            true => share(shape.format, &parsed, &shape) * parsed.len() as f64,
            false => parsed.iter().filter(is_kept).count() as f64,
        };
        // A row that is no row at all counts against the shape too.
        let sureness = n_kept / n_rows.max(1) as f64;
        let lack = lack.filter(|_| sureness == 0.0);
        Ok(Some(Source {
            lack,
            ..self.source(layout, cells, shape, sureness)
        }))
    }

    /// Whether what a row says becomes a document, unless somebody does not want such documents.
    fn keeps(&self, said: &Said) -> bool {
        let is_good = |text: &Cow<str>| {
            let text = self.settings.clean.clean(Cow::Borrowed(&**text));
            check_content(&text).is_ok()
        };
        match said {
            Said::Text(text) => is_good(text),
            Said::Dialogue(turns) => {
                let mut turns = turns.iter();
                said.is_answered()
                    && turns.all(|(role, text)| *role == Role::System || is_good(text))
            }
        }
    }

    /// Says which columns were named that no row has.
    fn lack(&self, rows: &[Cell], columns: &[String], cells: &Cells) -> Option<String> {
        let is_there = |name: &str| {
            columns.iter().any(|column| column == name)
                || rows.iter().any(|row| row.get(name).is_some())
        };
        let named = self.settings.columns.named().into_iter();
        let missing: Vec<String> = named
            .filter(|name| !is_there(name))
            .map(str::to_owned)
            .collect();
        if missing.is_empty() || rows.is_empty() {
            return None;
        }
        let header = match cells {
            Cells::Csv { .. } | Cells::Tsv { .. } if !cells.has_header() => {
                "; its first line is taken for a row: where it holds names, write `header: true`"
            }
            _ => "",
        };
        let (missing, there) = (quoted(&missing), quoted(&keys(&rows[0])));
        let there = format!("which has {there}{header}");
        Some(format!(
            "there is no column {missing} in `{}`, {there}",
            self.file
        ))
    }

    fn source(self, layout: Layout, cells: Cells, shape: Shape, sureness: f64) -> Source {
        Source {
            name: String::new(),
            file: self.file,
            path: self.path,
            bytes: self.bytes,
            encoding: self.encoding,
            layout,
            cells,
            shape,
            sureness: (1000.0 * sureness).round() / 1000.0,
            lack: None,
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

    fn unrecognised(
        &self,
        rows: &[Cell],
        n_rows: usize,
        shape: &Shape,
        lack: Option<String>,
    ) -> StageError {
        let error = StageError::new(format!("the shape of `{}` is not recognised", self.file));
        if let Some(lack) = lack {
            let help = "name columns that are there, or name none to have them recognised";
            return error.cause(lack).help(help).is_final();
        }
        let (cause, help) = match rows.first() {
            Some(row @ Cell::Map(_)) => {
                let why =
                    why_not(row, shape).map_or_else(String::new, |why| format!(", but {why}"));
                let keys = quoted(&keys(row));
                (format!("its first row has {keys}{why}"), "")
            }
            Some(row) => (format!("its first row is {}", row.kind()), ""),
            None => {
                let cause = format!("none of its first {n_rows} rows can be read");
                (cause, input::HINT)
            }
        };
        let named = "name the shape with `format`, or its columns with `columns`";
        let help = [named, help].into_iter().filter(|help| !help.is_empty());
        let help: Vec<&str> = help.collect();
        error.cause(cause).help(help.join("; ")).is_final()
    }

    fn first_rows(&self, layout: Layout, cells: &Cells) -> Result<FirstRows, StageError> {
        let bytes_max = self.settings.row_bytes_max as usize;
        FirstRows::read(&self.path, self.encoding, layout, cells, bytes_max)
    }

    fn text(self, head: &str, mut shape: Shape) -> Result<Option<Source>, StageError> {
        let found = text_format(head, head.len() as u64 == SNIFF_BYTES, &shape);
        if matches!(shape.format, Format::Auto | Format::Pairs) && found == Format::Pairs {
            let cells = tsv_cells(head.as_bytes(), self.settings);
            let cells = cells.map_err(|error| self.placed(error))?;
            return self.tabular(Layout::Lines, cells, shape);
        }
        if shape.format == Format::Auto {
            shape.format = found;
        } else if !shape.format.is_of_text() {
            let format = shape.format.name();
            let message = format!("`{}` is text, which has no `{format}`", self.file);
            return Err(StageError::new(message).is_final());
        }
        let layout = text_layout(shape.format);
        let is_whole = shape.format.is_of_raw_text() || shape.format.is_gathered();
        let sureness = match is_whole {
            true => 1.0,
            false => self.share_kept(layout, &shape)?,
        };
        Ok(Some(self.source(layout, Cells::Text, shape, sureness)))
    }

    fn share_kept(&self, layout: Layout, shape: &Shape) -> Result<f64, StageError> {
        let rows = self.first_rows(layout, &Cells::Text)?.rows;
        let is_kept = |row: &&Vec<u8>| {
            let said = std::str::from_utf8(row).ok();
            let said = said.and_then(|text| shape.read_text(text).ok());
            said.is_some_and(|said| self.keeps(&said))
        };
        Ok(rows.iter().filter(is_kept).count() as f64 / rows.len().max(1) as f64)
    }
}

/// Returns the names in a row.
fn keys(row: &Cell) -> Vec<String> {
    match row {
        Cell::Map(entries) => entries.iter().map(|(key, _)| key.to_string()).collect(),
        _ => Vec::new(),
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

/// DailyDialog's acts and emotions: text files of numbers.
fn is_labels(text: &str) -> bool {
    let mut filled = text.chars().filter(|c| !c.is_whitespace()).peekable();
    filled.peek().is_some() && filled.all(|c| c.is_ascii_digit())
}
