//! `duplicates.jsonl`: what was dropped, in whose favour, and why.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use serde_json::Value;
use tinylm_pipeline::{At, StageError};

use super::verdict::{Verdict, Why};
use crate::shared::{documents::Digest, hex::hex, shown};

pub(super) const NAME: &str = "duplicates.jsonl";

pub(super) struct DuplicatesWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl DuplicatesWriter {
    pub(super) fn create(path: &Path) -> Result<Self, StageError> {
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::new(File::create_new(path).at(path)?),
        })
    }

    pub(super) fn push<K>(
        &mut self,
        id: Digest,
        kept: Digest,
        verdict: &Verdict<K>,
    ) -> Result<(), StageError> {
        let why = match verdict.why {
            Why::Exact => "exact",
            Why::Near => "near",
            Why::Contamination => "contamination",
        };
        let (id, kept, similarity) = (hex(&id), hex(&kept), verdict.similarity);
        writeln!(
            self.file,
            r#"{{"id":"{id}","kept_id":"{kept}","similarity":{similarity},"reason":"{why}"}}"#
        )
        .at(&self.path)
    }

    pub(super) fn finish(mut self) -> Result<(), StageError> {
        self.file.flush().at(&self.path)
    }
}

/// Returns the first duplicates as lines for a person, each with the document kept for it.
pub(super) fn shown(artifact: &Path) -> Result<Vec<String>, StageError> {
    let (entries, name) = shown::first_entries(artifact, NAME)?;
    let word = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let ids: Vec<String> = entries.iter().map(|entry| word(entry, "kept_id")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let found = shown::documents_of(artifact, &ids)?;
    let mut lines = Vec::new();
    if !entries.is_empty() {
        lines.extend([String::new(), format!("dropped (all are in `{name}`):")]);
    }
    for entry in &entries {
        let (reason, kept) = (word(entry, "reason"), word(entry, "kept_id"));
        let share = 100.0 * entry["similarity"].as_f64().unwrap_or_default();
        lines.push(String::new());
        lines.push(format!(
            "  {reason}, {share:.0} % the same as {}",
            &kept[..kept.len().min(12)]
        ));
        let of_id = found.iter().find(|(id, _)| *id == kept);
        lines.extend(of_id.into_iter().flat_map(|(_, text)| text.clone()));
    }
    Ok(lines)
}
