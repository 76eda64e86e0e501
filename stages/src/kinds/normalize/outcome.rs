//! What became of the rows of some files, or of a whole corpus: counted, judged, and told.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tinylm_pipeline::{Metrics, StageError};

use super::{input, rows::Tally, source::Source};
use crate::shared::documents::Written;

/// So many lines of examples are quoted, of however many parts.
const EXAMPLES_MAX: usize = 11;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) files: Vec<FileOutcome>,
    /// Rows that were rejected, one for every reason, one a line.
    pub(super) examples: String,
    /// The first row that could be read and was not wanted.
    pub(super) unwanted: String,
    pub(super) n_documents: u64,
    pub(super) n_bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FileOutcome {
    source: String,
    file: String,
    format: String,
    sureness: f64,
    lack: Option<String>,
    tally: Tally,
}

impl FileOutcome {
    pub(super) fn of(source: &Source, tally: Tally) -> Self {
        Self {
            source: source.name.clone(),
            file: source.file.clone(),
            format: source.shape.format.name(),
            sureness: source.sureness,
            lack: source.lack.clone(),
            tally,
        }
    }
}

impl Outcome {
    pub(super) fn wrote(&mut self, written: Written) {
        self.n_documents = written.n_documents;
        self.n_bytes = written.n_bytes;
    }

    /// Adds what became of the files behind these.
    pub(super) fn add(&mut self, next: Self) {
        self.files.extend(next.files);
        let lines = self.examples.lines().chain(next.examples.lines());
        let lines: Vec<&str> = lines.take(EXAMPLES_MAX).collect();
        self.examples = lines.join("\n");
        if self.unwanted.is_empty() {
            self.unwanted = next.unwanted;
        }
        self.n_documents += next.n_documents;
        self.n_bytes += next.n_bytes;
    }

    fn total(&self) -> Tally {
        let mut total = Tally::default();
        for file in &self.files {
            total.add(&file.tally);
        }
        total
    }

    /// Refuses a corpus of which too little is left.
    pub(super) fn check(&self, rejects_max: f64) -> Result<(), StageError> {
        let total = self.total();
        if total.rows == 0 {
            let names: Vec<String> = self.files.iter().map(|file| file.file.clone()).collect();
            return Err(StageError::new("the sources hold no rows")
                .cause(super::files::listing(&names))
                .is_final());
        }
        let share = total.rejected as f64 / total.rows as f64;
        if total.rejected > 0 && (share > rejects_max || total.documents == 0) {
            return Err(self.too_many_rejected(&total));
        }
        if total.documents == 0 {
            let message = format!("none of {} rows was wanted", total.rows);
            return Err(StageError::new(message).cause(&self.unwanted).is_final());
        }
        Ok(())
    }

    fn too_many_rejected(&self, total: &Tally) -> StageError {
        let message = format!("{} of {} rows were rejected", total.rejected, total.rows);
        let lacks = self.files.iter().filter_map(|file| file.lack.clone());
        let mut advice: Vec<String> = lacks.collect();
        if self.examples.contains("not UTF-8") {
            advice.push(input::HINT.to_owned());
        }
        if advice.is_empty() {
            advice.push("name the shape with `format` or `columns`".to_owned());
        }
        advice.push("or raise `rejects_max`".to_owned());
        let list = "`rejects_max: 1.0` keeps the whole list, `rejected.jsonl`";
        StageError::new(message)
            .cause(&self.examples)
            .help(format!("{}; {list}", advice.join(", ")))
            .is_final()
    }

    /// Says what the files were read as, and what became of their rows.
    pub(super) fn summary(&self) -> String {
        let mut formats: Vec<(&str, Vec<&str>)> = Vec::new();
        for file in &self.files {
            match formats.iter_mut().find(|(known, _)| *known == file.format) {
                Some((_, files)) => files.push(&file.file),
                None => formats.push((&file.format, vec![&file.file])),
            }
        }
        let read = formats.iter().map(|(format, files)| match files[..] {
            [file] => format!("`{file}` is read as `{format}`"),
            _ => format!("{} files are read as `{format}`", files.len()),
        });
        let read: Vec<String> = read.collect();
        let total = self.total();
        let (n_rows, n_rejected) = (total.rows, total.rejected);
        let mut said = format!("{}: {n_rows} rows, {n_rejected} rejected", read.join(", "));
        if total.filtered > 0 {
            said.push_str(&format!(", {} left out", total.filtered));
        }
        said
    }

    pub(super) fn metrics(&self) -> Metrics {
        let total = self.total();
        Metrics::default()
            .count("documents", self.n_documents)
            .count("bytes", self.n_bytes)
            .count("turns", total.turns)
            .count("rows", total.rows)
            .count("rejected", total.rejected)
            .count("filtered", total.filtered)
    }

    pub(super) fn stats(&self) -> Value {
        let files = self.files.iter().map(|file| {
            let mut entry = Map::new();
            entry.insert("source".to_owned(), json!(file.source));
            entry.insert("file".to_owned(), json!(file.file));
            entry.insert("format".to_owned(), json!(file.format));
            entry.insert("sureness".to_owned(), json!(file.sureness));
            file.tally.write(&mut entry);
            Value::Object(entry)
        });
        let files: Vec<Value> = files.collect();
        let mut stats = Map::new();
        stats.insert("version".to_owned(), json!(1));
        stats.insert("bytes".to_owned(), json!(self.n_bytes));
        self.total().write(&mut stats);
        stats.insert("documents".to_owned(), json!(self.n_documents));
        stats.insert("files".to_owned(), json!(files));
        Value::Object(stats)
    }
}
