//! Turns data of any shape into documents of one.
//!
//! Each file's layout follows from its name, its shape from its first rows (or from
//! `format`); then rows go through in chunks: found on one thread, read, cleaned and
//! encoded on the others, written in order. Nothing is loaded whole and
//! the artifact does not depend on the number of threads.
//!
//! Of chats, and tables of messages, a row is a part of a document; they are put together where
//! rows are found.
//!
//! No row is lost in silence: what cannot be read is in `rejected.jsonl` with its
//! file, row and reason, and too many of those fail the stage. A row of more than
//! `row_bytes_max` or a million turns is one of them: it is passed over, not held (of
//! Parquet, the part of a row group that it stands in is). Ids and groups are taken from
//! what was said as it was read, before cleaning and system prompts, so that neither moves
//! a document across a split.

mod auto;
mod casting;
mod cell;
mod chunk;
mod chunks;
mod clean;
mod columns;
mod conversations;
mod csv;
mod doubts;
mod examples;
mod files;
mod find;
mod first_rows;
mod flat;
mod gathered;
mod header;
mod input;
mod joiner;
mod json_layout;
mod lists;
mod marked;
mod personachat;
mod preferences;
mod read;
mod rejected;
mod row_groups;
mod rows;
mod said;
mod settings;
pub(crate) mod shapes;
mod source;
mod table;
mod whatsapp;
mod when;

use std::path::Path;

use serde_json::{Map, Value, json};
use tinylm_pipeline::{
    Content, FindInput, Forecast, Metrics, NoSettings, Role as InputRole, Roles, SettingError,
    Stage, StageError, StageIo,
};

use crate::shared::{
    documents::{DocumentsWriter, Written},
    json::write_json,
    parallel::in_order,
    shown,
    template::Role,
};
use chunks::Chunks;
use rejected::Rejections;
use rows::{Made, Recipe, Tally};
use settings::{Pairs, SystemPrompts};
use shapes::Format;
use source::Source;

pub use examples::{EXAMPLES, Example};
pub use settings::NormalizeSettings;

pub struct Normalize;

impl Stage for Normalize {
    type Settings = NormalizeSettings;
    type Watch = NoSettings;

    const KIND: &'static str = "normalize";
    const ABOUT: &'static str = "turns data of any shape into documents";
    const REVISION: u32 = 6;
    const MAKES: Content = Content::Documents;
    const ROLES: Roles = Roles::Fixed(&[InputRole::many("sources", "what `download` brought")
        .takes(&[Content::Files, Content::Documents, Content::Samples])]);

    fn canonical(mut settings: NormalizeSettings) -> Result<NormalizeSettings, SettingError> {
        check_system(&settings)?;
        let encoding = input::encoding(&settings.encoding).ok_or_else(|| {
            let message = format!("`{}` is no encoding", settings.encoding);
            SettingError::new("encoding", message).help("such as `utf-8`, `windows-1252`, `utf-16`")
        })?;
        // It has many names, and one key.
        settings.encoding = encoding.name().to_ascii_lowercase();
        for name in settings.roles.values() {
            if !Role::ALL.iter().any(|role| role.name() == name) {
                let message = format!("`{name}` is neither `system`, `user` nor `assistant`");
                return Err(SettingError::new("roles", message));
            }
        }
        if !(0.0..=1.0).contains(&settings.rejects_max) {
            return Err(SettingError::new(
                "rejects_max",
                "a share lies between 0 and 1",
            ));
        }
        // In columns, the shortest turns take several times their bytes.
        if !(1..=1 << 27).contains(&settings.row_bytes_max) {
            let message = "a row may have between 1 and 134217728 bytes";
            return Err(SettingError::new("row_bytes_max", message));
        }
        if settings.format == Format::Preferences && settings.pairs != Pairs::Whole {
            let message = "`format: preferences` has pairs of its own";
            return Err(SettingError::new("pairs", message).help("leave it out"));
        }
        if settings.pause_minutes == 0 {
            let message = "a silence of no length ends every turn";
            return Err(SettingError::new("pause_minutes", message));
        }
        for (idx, glob) in settings.files.iter().enumerate() {
            if let Err(error) = glob::Pattern::new(glob) {
                return Err(SettingError::new(format!("files.{idx}"), error.to_string()));
            }
        }
        Ok(settings)
    }

    fn show(artifact: &Path) -> Result<Vec<String>, StageError> {
        let mut lines = shown::first_documents(artifact)?;
        lines.extend(rejected::shown(artifact)?);
        Ok(lines)
    }

    fn forecast(_: &NormalizeSettings, input: &FindInput) -> Option<Forecast> {
        let bytes = input("sources").text_bytes()?;
        Some(Forecast::Texts { bytes })
    }

    fn run(
        settings: &NormalizeSettings,
        _watch: &NoSettings,
        io: &StageIo,
    ) -> Result<Metrics, StageError> {
        let sources = files::sources(settings, io)?;
        doubts::look(settings, io, &sources)?;
        let assistant = casting::assistant(settings, io, &sources)?;
        let mut run = Run::new(settings, io, &sources, assistant)?;
        run.go()?;
        run.finish()
    }
}

fn check_system(settings: &NormalizeSettings) -> Result<(), SettingError> {
    match (settings.system, &settings.system_prompt) {
        (SystemPrompts::Add, None) => Err(SettingError::new(
            "system_prompt",
            "`system: add` needs a prompt to add",
        )),
        (SystemPrompts::Keep | SystemPrompts::Remove, Some(_)) => {
            let error = SettingError::new("system_prompt", "nothing adds it");
            Err(error.help("write `system: add` beside it"))
        }
        _ => Ok(()),
    }
}

/// One pass over all sources.
struct Run<'a> {
    settings: &'a NormalizeSettings,
    io: &'a StageIo<'a>,
    sources: &'a [Source],
    assistant: Option<String>,
    writer: Option<DocumentsWriter>,
    rejections: Rejections,
    tallies: Vec<Tally>,
    bytes_total: u64,
    n_left: u64,
}

impl<'a> Run<'a> {
    fn new(
        settings: &'a NormalizeSettings,
        io: &'a StageIo<'a>,
        sources: &'a [Source],
        assistant: Option<String>,
    ) -> Result<Self, StageError> {
        Ok(Self {
            settings,
            io,
            sources,
            assistant,
            writer: Some(DocumentsWriter::create(io.out())),
            rejections: Rejections::create(io.out())?,
            tallies: vec![Tally::default(); sources.len()],
            bytes_total: sources.iter().map(|source| source.bytes).sum(),
            n_left: settings.max_documents.unwrap_or(u64::MAX),
        })
    }

    fn go(&mut self) -> Result<(), StageError> {
        let (settings, sources) = (self.settings, self.sources);
        let assistant = self.assistant.clone();
        let mut writer = self
            .writer
            .take()
            .ok_or_else(|| StageError::new("the documents are closed"))?;
        let encoder = writer.encoder();
        let recipe = Recipe::new(settings);
        let enough = std::cell::Cell::new(false);
        let mut chunks = Chunks::new(sources, settings, assistant.as_deref());
        let outcome = in_order(
            self.io.threads(),
            |(_, chunk): &(usize, chunk::Chunk)| chunk.weight(),
            || {
                if enough.get() {
                    return Ok(None);
                }
                chunks.next()
            },
            |(source_idx, chunk)| recipe.make(&sources[source_idx], source_idx, chunk, &encoder),
            |made| {
                self.take(made, &mut writer)?;
                enough.set(self.n_left == 0);
                Ok(())
            },
        );
        self.writer = Some(writer);
        for warning in chunks.warnings() {
            self.io.warn(warning);
        }
        outcome
    }

    /// Takes what became of one chunk, unless there is enough already.
    fn take(&mut self, made: Made, writer: &mut DocumentsWriter) -> Result<(), StageError> {
        if self.n_left == 0 {
            return Ok(());
        }
        let before = self.bytes_before(made.source_idx);
        self.io
            .progress(before + made.position, Some(self.bytes_total), "bytes")?;
        let source = &self.sources[made.source_idx];
        for rejection in &made.rejected {
            self.rejections.push(source, rejection)?;
        }
        let mut tally = made.tally;
        tally.documents = 0;
        for documents in made.documents {
            tally.documents += match documents {
                rows::Documents::Encoded(encoded) => {
                    let n_rows = encoded.n_rows as u64;
                    writer.push_encoded(encoded)?;
                    n_rows
                }
                rows::Documents::Rows(rows) => {
                    let left = self.n_left - tally.documents;
                    let wanted = usize::try_from(left).unwrap_or(usize::MAX);
                    for row in rows.iter().take(wanted) {
                        writer.push(&row)?;
                    }
                    rows.len().min(wanted) as u64
                }
            };
        }
        self.n_left -= tally.documents;
        self.tallies[made.source_idx].add(&tally);
        Ok(())
    }

    fn bytes_before(&self, source_idx: usize) -> u64 {
        self.sources[..source_idx]
            .iter()
            .map(|source| source.bytes)
            .sum()
    }

    fn finish(self) -> Result<Metrics, StageError> {
        let mut total = Tally::default();
        for tally in &self.tallies {
            total.add(tally);
        }
        self.check(&total)?;
        self.io.note(summary(self.sources, &total));
        let Some(writer) = self.writer else {
            return Err(StageError::new("the documents are closed"));
        };
        let written = writer.finish()?;
        self.rejections.finish()?;
        let stats = stats(self.sources, &self.tallies, &total, written);
        write_json(&self.io.out().join("stats.json"), &stats)?;
        Ok(Metrics::default()
            .count("documents", written.n_documents)
            .count("bytes", written.n_bytes)
            .count("turns", total.turns)
            .count("rows", total.rows)
            .count("rejected", total.rejected)
            .count("filtered", total.filtered))
    }

    /// Refuses a corpus of which too little is left.
    fn check(&self, total: &Tally) -> Result<(), StageError> {
        if total.rows == 0 {
            let message = "the sources hold no rows";
            return Err(StageError::new(message)
                .cause(files::listing(self.sources))
                .is_final());
        }
        let share = total.rejected as f64 / total.rows as f64;
        if total.rejected > 0 && (share > self.settings.rejects_max || total.documents == 0) {
            let message = format!("{} of {} rows were rejected", total.rejected, total.rows);
            let examples = self.rejections.examples();
            let lacks = self.sources.iter().filter_map(|source| source.lack.clone());
            let mut advice: Vec<String> = lacks.collect();
            if examples.contains("not UTF-8") {
                advice.push(input::HINT.to_owned());
            }
            if advice.is_empty() {
                advice.push("name the shape with `format` or `columns`".to_owned());
            }
            advice.push("or raise `rejects_max`".to_owned());
            let list = "`rejects_max: 1.0` keeps the whole list, `rejected.jsonl`";
            return Err(StageError::new(message)
                .cause(examples)
                .help(format!("{}; {list}", advice.join(", ")))
                .is_final());
        }
        if total.documents == 0 {
            let message = format!("none of {} rows was wanted", total.rows);
            let why = self.rejections.unwanted();
            return Err(StageError::new(message).cause(why).is_final());
        }
        Ok(())
    }
}

/// Says what the files were read as, and what became of their rows.
fn summary(sources: &[Source], total: &Tally) -> String {
    let mut formats: Vec<(String, Vec<&str>)> = Vec::new();
    for source in sources {
        let format = source.shape.format.name();
        match formats.iter_mut().find(|(known, _)| *known == format) {
            Some((_, files)) => files.push(&source.file),
            None => formats.push((format, vec![&source.file])),
        }
    }
    let read = formats.iter().map(|(format, files)| match files[..] {
        [file] => format!("`{file}` is read as `{format}`"),
        _ => format!("{} files are read as `{format}`", files.len()),
    });
    let read: Vec<String> = read.collect();
    let (n_rows, n_rejected) = (total.rows, total.rejected);
    let mut said = format!("{}: {n_rows} rows, {n_rejected} rejected", read.join(", "));
    if total.filtered > 0 {
        said.push_str(&format!(", {} left out", total.filtered));
    }
    said
}

fn stats(sources: &[Source], tallies: &[Tally], total: &Tally, written: Written) -> Value {
    let files: Vec<Value> = sources
        .iter()
        .zip(tallies)
        .map(|(source, tally)| {
            let mut entry = Map::new();
            entry.insert("source".to_owned(), json!(source.name));
            entry.insert("file".to_owned(), json!(source.file));
            entry.insert("format".to_owned(), json!(source.shape.format));
            entry.insert("sureness".to_owned(), json!(source.sureness));
            tally.write(&mut entry);
            Value::Object(entry)
        })
        .collect();
    let mut stats = Map::new();
    stats.insert("version".to_owned(), json!(1));
    stats.insert("bytes".to_owned(), json!(written.n_bytes));
    total.write(&mut stats);
    stats.insert("documents".to_owned(), json!(written.n_documents));
    stats.insert("files".to_owned(), json!(files));
    Value::Object(stats)
}

#[cfg(test)]
mod tests;
