//! The names of columns, where a CSV or TSV file opens with them, and else what they are called.

use std::borrow::Cow;

use tinylm_pipeline::StageError;

use super::{csv, settings::NormalizeSettings, source::Cells};

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

pub(super) fn tsv_cells(head: &[u8], settings: &NormalizeSettings) -> Result<Cells, StageError> {
    let line = first_line(head);
    let is_quoted = csv::tsv_is_quoted(&line);
    let first = csv::tsv_fields(&line, is_quoted);
    let first: Vec<String> = first.into_iter().map(Cow::into_owned).collect();
    let (columns, has_header) = columns(&first, settings, false)?;
    Ok(Cells::Tsv {
        columns,
        has_header,
        is_quoted,
    })
}

pub(super) fn csv_cells(head: &[u8], settings: &NormalizeSettings) -> Result<Cells, StageError> {
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
