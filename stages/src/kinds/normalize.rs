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
mod outcome;
mod parts;
mod personachat;
mod preferences;
mod read;
mod rejected;
mod row_groups;
mod rows;
mod run;
mod said;
mod settings;
pub(crate) mod shapes;
mod source;
pub(crate) mod survey;
mod table;
mod whatsapp;
mod when;
mod words;

use std::path::Path;

use tinylm_pipeline::spec::keys::Key;
use tinylm_pipeline::{
    Content, FindInput, Forecast, Kind, Metrics, NoSettings, Role as InputRole, Roles,
    SettingError, Stage, StageError, StageIo,
    parts::{Collection, Conductor},
};

use crate::shared::{json::write_json, shown, template::Role};
use run::{REVISION, Run, STATS};
use settings::{Pairs, SystemPrompts};
use shapes::Format;

pub use examples::{EXAMPLES, Example};
pub use settings::NormalizeSettings;

pub struct Normalize;

/// The kinds of its parts.
pub(super) const PARTS: &[Kind] = parts::KINDS;

impl Stage for Normalize {
    type Settings = NormalizeSettings;
    type Watch = NoSettings;

    const KIND: &'static str = "normalize";
    const ABOUT: &'static str = "turns data of any shape into documents";
    const REVISION: u32 = REVISION;
    const MAKES: Content = Content::Documents;
    const METRICS: &'static [Key] = &[
        ("documents", "Documents that were written."),
        ("bytes", "The bytes of what is said in them."),
        ("turns", "Turns of the dialogues among them."),
        (
            "rows",
            "Rows of the sources that were read: lines, records, messages put together, whatever makes a document.",
        ),
        (
            "rejected",
            "Rows that could not be read; `rejected.jsonl` has each with its reason.",
        ),
        (
            "filtered",
            "Rows that were read and that `bounds` or the format leave out.",
        ),
    ];
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
        for (name, max) in [
            ("max_rows", settings.max_rows),
            ("max_documents", settings.max_documents),
        ] {
            if max == Some(0) {
                return Err(SettingError::new(name, "leaves nothing to read"));
            }
            if settings.partition.is_some() && max.is_some() {
                let message = "counts from the start of the corpus, which parts do not know of";
                return Err(SettingError::new(name, message)
                    .help("leave out `partition`, or name fewer `files`"));
            }
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
        let outcome = run.finish()?;
        outcome.check(settings.rejects_max)?;
        io.note(outcome.summary());
        write_json(&io.out().join(STATS), &outcome.stats())?;
        Ok(outcome.metrics())
    }

    fn is_in_parts(settings: &NormalizeSettings) -> bool {
        settings.partition.is_some()
    }

    fn conduct(
        settings: &NormalizeSettings,
        conductor: &dyn Conductor,
    ) -> Result<Collection, StageError> {
        parts::conduct(settings, conductor)
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

#[cfg(test)]
mod tests;
