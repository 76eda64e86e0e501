//! What files of a person's own are taken for, said as the settings that take them for it.
//!
//! Files, shapes and people are found by what a run finds them with. One thing more is known here: that somebody calls
//! these files a chat. So lines that begin with names are turns, which `auto` only warns of, since a play is no chat.
//! And whoever is asked for a setting may as well be given it: a file that is marked as UTF-16 is read as that.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};
use tinylm_pipeline::{StageError, StageIo, settings::defaults};

use super::{
    casting,
    doubts::{self, names_in_lines},
    files,
    settings::NormalizeSettings,
    shapes::Format,
    source::Source,
};
use crate::shared::{files::files_below, template::Role};

/// What some files are taken for.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// Where all files are of one shape.
    pub(crate) format: Option<Format>,
    /// The settings that say so.
    pub(crate) settings: Map<String, Value>,
    /// Where people talk and not roles: who the model is to answer as, and whom it hears.
    pub(crate) assistant: Option<String>,
    pub(crate) users: Vec<String>,
}

/// Looks at files that are said to be a chat.
pub(crate) fn chat(io: &StageIo) -> Result<Look, StageError> {
    let mut settings = defaults::<NormalizeSettings>();
    let marked = marked(io)?;
    if let Some(encoding) = marked {
        settings.encoding = encoding.to_owned();
    }
    let mut look = look(&settings, io, only_file(io)?.is_some())?;
    look.settings
        .extend(marked.map(|encoding| ("encoding".to_owned(), json!(encoding))));
    Ok(look)
}

/// Returns the encoding that the file is marked as, if only one can be data and it is not UTF-8.
pub(crate) fn marked(io: &StageIo) -> Result<Option<&'static str>, StageError> {
    let is_marked = only_file(io)?.is_some_and(|path| is_utf_16(&path));
    Ok(is_marked.then_some("utf-16"))
}

/// What to do with a file of an encoding that nobody has named.
pub(crate) fn save_as_utf_8(file: &str) -> String {
    format!(
        "save it as that: `iconv -f windows-1252 -t utf-8 {file}` reads what older programs write"
    )
}

/// Returns the file, if only one can be data.
fn only_file(io: &StageIo) -> Result<Option<PathBuf>, StageError> {
    let wanted = files::Wanted::new(&defaults());
    let mut paths = Vec::new();
    for input in io.inputs("sources") {
        let files = files_below(&input.path)?.into_iter();
        let files = files.filter(|(name, _)| wanted.takes(name));
        paths.extend(files.map(|(_, path)| path));
    }
    Ok(paths.pop().filter(|_| paths.is_empty()))
}

fn is_utf_16(path: &Path) -> bool {
    let mut mark = [0; 2];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut mark));
    read.is_ok() && [[0xff, 0xfe], [0xfe, 0xff]].contains(&mark)
}

fn look(settings: &NormalizeSettings, io: &StageIo, is_alone: bool) -> Result<Look, StageError> {
    let sources = files::sources(settings, io)?;
    let is_raw = |source: &&Source| source.shape.format.is_of_raw_text();
    if let Some(raw) = sources.iter().find(is_raw) {
        doubts::look(settings, io, &sources)?;
        let words = sources.iter().map(|source| doubts::words(source, settings));
        let text = words.collect::<Result<Vec<String>, _>>()?.join("\n");
        let are_alike = sources.iter().all(|source| is_raw(&source));
        let names = by_names(&text).filter(|_| are_alike);
        return names.ok_or_else(|| no_chat(raw, &text));
    }
    let mut look = Look::default();
    // A folder may hold more than talk, as Slack's export does, and then each file is recognised for itself.
    if let [source] = &sources[..] {
        let format = source.shape.format;
        look.format = Some(format);
        if is_alone {
            look.settings
                .insert("format".to_owned(), json!(format.name()));
        }
    }
    if let Some(chosen) = casting::to_choose(settings, io, &sources)? {
        look.users = chosen.others().map(str::to_owned).collect();
        look.settings
            .insert("assistant".to_owned(), json!(chosen.assistant));
        look.assistant = Some(chosen.assistant);
    }
    Ok(look)
}

/// Turns whose lines begin with a name each: whoever opens is a user, and of the others the one who says most answers.
fn by_names(text: &str) -> Option<Look> {
    let names = names_in_lines(text, is_of_name)?;
    let place = |name: &str| {
        let mut lines = text.lines();
        lines.position(|line| line.starts_with(&format!("{name}: ")))
    };
    let (opener, _) = names.iter().min_by_key(|(name, _)| place(name))?;
    let mut others = names.iter().map(|(name, _)| *name);
    let assistant = others.find(|name| name != opener)?;
    let roles = names.iter().map(|(name, _)| {
        let role = match *name == assistant {
            true => Role::Assistant,
            false => Role::User,
        };
        ((*name).to_owned(), json!(role.name()))
    });
    let roles: Map<String, Value> = roles.collect();
    let mut look = Look {
        format: Some(Format::Speakers),
        assistant: Some(assistant.to_owned()),
        ..Look::default()
    };
    let users = names.iter().map(|(name, _)| *name);
    let users = users.filter(|name| *name != assistant);
    look.users = users.map(str::to_owned).collect();
    let format = Format::Speakers.name();
    look.settings.insert("format".to_owned(), json!(format));
    look.settings
        .insert("roles".to_owned(), Value::Object(roles));
    Some(look)
}

/// People call themselves what they like, but brackets and quotes belong to something else.
fn is_of_name(word: &str) -> bool {
    let is_odd = |c: char| "\"<>{}[]()|=/\\".contains(c) || c.is_control();
    !word.is_empty() && !word.contains(is_odd) && !word.contains(char::REPLACEMENT_CHARACTER)
}

fn no_chat(source: &Source, text: &str) -> StageError {
    // The last character may only have been cut.
    let text = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
    if text.contains(char::REPLACEMENT_CHARACTER) {
        let file = &source.file;
        return StageError::new(format!("`{file}` is not UTF-8"))
            .help(save_as_utf_8(file))
            .is_final();
    }
    StageError::new(format!("`{}` is no chat that can be read", source.file))
        .cause("nothing in it says who speaks, so it is raw text")
        .help(
            "give it as `--text`, or begin each turn with a name (`Anna: hello`); `tinylm language` shows the shapes \
             that are recognised",
        )
        .is_final()
}
