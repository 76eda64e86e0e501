//! Documents, and the lists beside them, as `tinylm show` prints them.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use serde_json::Value;
use tinylm_pipeline::{At, StageError};

use super::{
    documents::{Contents, Document, Documents},
    files::files_below,
    hex::hex,
    template::{Spacing, Template, written},
};

/// So many documents or entries of a list are shown.
const N_SHOWN: usize = 3;
/// So many lines of a document.
const LINES_MAX: usize = 24;
/// So many characters of a line.
const CHARS_MAX: usize = 400;
/// So many row groups are looked through for a document.
const GROUPS_MAX: usize = 16;

/// Returns the first documents of an artifact, dialogues as ChatML.
pub(crate) fn first_documents(folder: &Path) -> Result<Vec<String>, StageError> {
    let documents = Documents::open(&[folder])?;
    let n_shown = documents.n_documents().min(N_SHOWN as u64);
    let mut lines = vec![format!(
        "documents, {n_shown} of {}:",
        documents.n_documents()
    )];
    if let Some(group) = documents.row_groups().first() {
        for document in group.read()?.iter().take(N_SHOWN) {
            lines.push(String::new());
            lines.extend(shown(&document));
        }
    }
    Ok(lines)
}

/// Returns the documents of these ids that stand in the first row groups.
pub(crate) fn documents_of(
    folder: &Path,
    ids: &[&str],
) -> Result<Vec<(String, Vec<String>)>, StageError> {
    let documents = Documents::open(&[folder])?;
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for group in documents.row_groups().iter().take(GROUPS_MAX) {
        if ids
            .iter()
            .all(|id| found.iter().any(|(known, _)| known == id))
        {
            break;
        }
        for document in group.read()?.iter() {
            let id = hex(&document.id);
            if ids.contains(&id.as_str()) {
                found.push((id, shown(&document)));
            }
        }
    }
    Ok(found)
}

/// Returns the first entries of a list of JSON lines in an artifact, and what to call the files that they are
/// in: `rejected.jsonl`, or of a stage in parts `rejected-*.jsonl`.
pub(crate) fn first_entries(
    artifact: &Path,
    list: &str,
) -> Result<(Vec<Value>, String), StageError> {
    let whole = artifact.join(list);
    if whole.exists() {
        return Ok((entries_of(&whole)?, list.to_owned()));
    }
    let (stem, ending) = list.split_once('.').unwrap_or((list, ""));
    let of_part = format!("{stem}-");
    let mut entries = Vec::new();
    for (name, path) in files_below(artifact)? {
        if name.starts_with(&of_part) && name.ends_with(ending) && entries.len() < N_SHOWN {
            entries.extend(entries_of(&path)?);
        }
    }
    entries.truncate(N_SHOWN);
    Ok((entries, format!("{stem}-*.{ending}")))
}

fn entries_of(path: &Path) -> Result<Vec<Value>, StageError> {
    let lines = BufReader::new(File::open(path).at(path)?).lines();
    let entries = lines.take(N_SHOWN).map(|line| {
        let entry = serde_json::from_str(&line.at(path)?);
        entry.map_err(|error| StageError::new(format!("`{}`: {error}", path.display())))
    });
    entries.collect()
}

fn shown(document: &Document) -> Vec<String> {
    let mut text = match document.contents.chosen() {
        Contents::Text(text) => text.to_owned(),
        Contents::Dialogue(turns) => {
            written(&Template::Chatml.pieces(turns.iter(), Spacing::Nowhere))
        }
    };
    if let Some(worse) = document.contents.rejected() {
        text += &format!("\nrejected: {worse}");
    }
    let mut lines: Vec<String> = text.lines().take(LINES_MAX).map(indented).collect();
    if text.lines().nth(LINES_MAX).is_some() {
        lines.push("  ..".to_owned());
    }
    lines
}

fn indented(line: &str) -> String {
    match line.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("  {}..", &line[..end]),
        None => format!("  {line}"),
    }
}
