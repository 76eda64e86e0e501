//! `rejected.jsonl`: what was left out, where it stood and why.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use serde_json::json;
use tinylm_pipeline::{At, StageError};

use super::{rows::Rejection, source::Source};
use crate::shared::shown;

pub(super) const NAME: &str = "rejected.jsonl";
/// So many reasons are quoted when a stage fails.
const N_EXAMPLES: usize = 10;
/// So many are told apart; reasons may quote what is in the rows.
const REASONS_MAX: usize = 100;

pub(super) struct Rejections {
    path: PathBuf,
    file: BufWriter<File>,
    examples: Vec<Example>,
    /// How many more were rejected, for reasons that are not among the examples.
    n_others: u64,
    /// The first row that could be read and was not wanted.
    unwanted: Option<String>,
}

/// The first row that was rejected for a reason.
struct Example {
    /// The reason without its numbers, which differ from row to row.
    reason: String,
    place: String,
    n_more: u64,
}

impl Example {
    fn said(&self) -> String {
        match self.n_more {
            0 => self.place.clone(),
            n => format!("{}, and {n} more like it", self.place),
        }
    }
}

impl Rejections {
    pub(super) fn create(folder: &Path) -> Result<Self, StageError> {
        let path = folder.join(NAME);
        let file = BufWriter::new(File::create_new(&path).at(&path)?);
        Ok(Self {
            path,
            file,
            examples: Vec::new(),
            n_others: 0,
            unwanted: None,
        })
    }

    pub(super) fn push(&mut self, source: &Source, row: &Rejection) -> Result<(), StageError> {
        match row.is_filtered {
            true => {
                let place = || format!("`{}`, row {}: {}", source.file, row.row, row.reason);
                self.unwanted.get_or_insert_with(place);
            }
            false => self.take_example(source, row),
        }
        let entry = json!({
            "source": source.name,
            "file": source.file,
            "row": row.row,
            "reason": row.reason,
        });
        writeln!(self.file, "{entry}").at(&self.path)
    }

    fn take_example(&mut self, source: &Source, row: &Rejection) {
        let reason: String = row.reason.chars().filter(|c| !c.is_ascii_digit()).collect();
        let known = self.examples.iter_mut();
        if let Some(example) = known.into_iter().find(|known| known.reason == reason) {
            example.n_more += 1;
        } else if self.examples.len() < REASONS_MAX {
            self.examples.push(Example {
                reason,
                place: format!("`{}`, row {}: {}", source.file, row.row, row.reason),
                n_more: 0,
            });
        } else {
            self.n_others += 1;
        }
    }

    /// Returns a row for every reason, the most frequent first, one a line.
    pub(super) fn examples(&self) -> String {
        let mut examples: Vec<&Example> = self.examples.iter().collect();
        examples.sort_by_key(|example| std::cmp::Reverse(example.n_more));
        let (shown, others) = examples.split_at(examples.len().min(N_EXAMPLES));
        let mut lines: Vec<String> = shown.iter().map(|example| example.said()).collect();
        let n_others: u64 = others.iter().map(|example| 1 + example.n_more).sum();
        match n_others + self.n_others {
            0 => {}
            n => lines.push(format!("and {n} for other reasons")),
        }
        lines.join("\n")
    }

    /// Returns the first row that could be read and was not wanted.
    pub(super) fn unwanted(&self) -> String {
        self.unwanted.clone().unwrap_or_default()
    }

    pub(super) fn finish(mut self) -> Result<(), StageError> {
        self.file.flush().at(&self.path)
    }
}

/// Returns the first rejections as lines for a person, if there are any.
pub(super) fn shown(artifact: &Path) -> Result<Vec<String>, StageError> {
    let (entries, name) = shown::first_entries(artifact, NAME)?;
    let mut lines = Vec::new();
    if !entries.is_empty() {
        lines.extend([String::new(), format!("left out (all are in `{name}`):")]);
    }
    lines.extend(entries.iter().map(|entry| {
        let word = |name: &str| entry[name].as_str().unwrap_or_default();
        format!(
            "  `{}`, row {}: {}",
            word("file"),
            entry["row"],
            word("reason")
        )
    }));
    Ok(lines)
}
