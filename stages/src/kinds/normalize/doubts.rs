//! What is read as raw text and looks like more.
//!
//! A chat that is swallowed as raw text trains a model that never answers, and nothing later says
//! so. Where a column says who speaks and nothing says which rows belong together, the file is
//! refused; where it merely looks like talk, a warning says which setting would read it as that.

use std::collections::HashMap;

use tinylm_pipeline::{StageError, StageIo};

use super::{
    auto::share,
    cell::Cell,
    chunk::Rows,
    find::Layout,
    flat,
    read::Reader,
    row_groups,
    settings::NormalizeSettings,
    shapes::Format,
    source::{Cells, Source},
    table,
};

const ROWS: usize = 100;
/// So much of a text file is looked at.
const BYTES: usize = 64 << 10;

/// Marks of turns that no shape reads.
const UNKNOWN_MARKS: [&str; 4] = [
    "<|start_header_id|>",
    "<start_of_turn>",
    "<|user|>",
    "<|assistant|>",
];
/// Columns that say who speaks. An author, or whoever rates a film, does not.
const SPEAKERS: [&str; 6] = ["role", "from", "speaker", "sender", "sender_name", "user"];

/// Refuses or warns of files that `auto` took for raw text.
pub(super) fn look(
    settings: &NormalizeSettings,
    io: &StageIo,
    sources: &[Source],
) -> Result<(), StageError> {
    let is_chosen = settings.format != Format::Auto || settings.columns.text.is_some();
    let of_text = sources
        .iter()
        .filter(|source| !is_chosen && source.shape.format.is_of_raw_text());
    for source in of_text {
        let doubt = match &source.cells {
            Cells::Text => in_text(source, settings)?,
            _ => in_rows(source, settings)?,
        };
        match doubt {
            Some(Doubt::Refused(error)) => return Err(error),
            Some(Doubt::Warning(why)) => io.warn(format!(
                "`{}` is read as raw text, and {why}; `format: text` says that it is",
                source.file
            )),
            None => {}
        }
    }
    Ok(())
}

enum Doubt {
    Refused(StageError),
    Warning(String),
}

fn refused(source: &Source, cause: String, help: &str) -> Option<Doubt> {
    let message = format!(
        "`{}` looks like talk and cannot be read as that",
        source.file
    );
    let error = StageError::new(message).cause(cause).help(help);
    Some(Doubt::Refused(error.is_final()))
}

fn in_rows(source: &Source, settings: &NormalizeSettings) -> Result<Option<Doubt>, StageError> {
    with_rows(source, settings, |rows| {
        who_speaks(source, rows).or_else(|| marked(source, rows))
    })
}

/// Looks at the first rows of a table.
fn with_rows<T>(
    source: &Source,
    settings: &NormalizeSettings,
    look: impl FnOnce(&[Cell]) -> T,
) -> Result<T, StageError> {
    let (bytes, table);
    let rows = if source.layout == Layout::Parquet {
        table = row_groups::table_head(&source.path, ROWS)?.1;
        table.as_ref().map(table::rows).unwrap_or_default()
    } else {
        bytes = first_units(source, settings)?;
        let parsed = bytes.iter().map(|row| source.cells.parse(row));
        parsed.filter_map(Result::ok).collect()
    };
    Ok(look(&rows))
}

/// Returns the first words of a file that is read as raw text.
pub(super) fn words(source: &Source, settings: &NormalizeSettings) -> Result<String, StageError> {
    if source.cells != Cells::Text {
        return with_rows(source, settings, |rows| texts(source, rows));
    }
    let bytes = first_units(source, settings)?.concat();
    Ok(String::from_utf8_lossy(&bytes[..bytes.len().min(BYTES)]).into_owned())
}

/// Returns the texts that rows hold.
fn texts(source: &Source, rows: &[Cell]) -> String {
    let texts = rows.iter().filter_map(|row| {
        let said = source.shape.read(row).ok()?;
        match said {
            super::said::Said::Text(text) => Some(text.into_owned()),
            super::said::Said::Dialogue(_) => None,
        }
    });
    texts.collect::<Vec<String>>().join("\n")
}

/// Rows with a column that says who speaks.
fn who_speaks(source: &Source, rows: &[Cell]) -> Option<Doubt> {
    let columns = &source.shape.columns;
    let said: Vec<(String, String)> = rows
        .iter()
        .filter(|row| flat::content(row, columns).is_some())
        .filter_map(|row| flat::who(row, columns))
        .filter(|(key, _)| SPEAKERS.contains(&key.as_str()))
        .map(|(key, name)| (key, name.into_owned()))
        .collect();
    let (key, _) = said.first()?;
    let content = rows.iter().find_map(|row| flat::content(row, columns));
    let content = content.map_or("text", |(name, _)| name);
    let mut names: Vec<&str> = said.iter().map(|(_, name)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let cause = format!("`{key}` says who speaks and `{content}` what, a turn a row");
    let is_met_again = names.len() >= 2 && 2 * names.len() <= said.len().max(4);
    match is_met_again {
        true => refused(
            source,
            format!("{cause}; no column says which rows belong together"),
            "name that column with `columns: {conversation: NAME}`, or say `format: turns` if the \
             file is one conversation, or `format: text` if each row is a text of its own",
        ),
        false => Some(Doubt::Warning(format!(
            "{cause}: `format: turns` would put them together"
        ))),
    }
}

/// Rows of which some hold turns.
fn marked(source: &Source, rows: &[Cell]) -> Option<Doubt> {
    let formats = [
        Format::Chatml,
        Format::Headings,
        Format::Inst,
        Format::Eou,
        Format::Speakers,
    ];
    let shares = formats.map(|format| (format, share(format, rows, &source.shape)));
    let most = shares.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
    if let Some((format, share)) = most.filter(|(_, share)| *share >= 0.1) {
        let percent = (100.0 * share).round();
        let name = format.name();
        return Some(Doubt::Warning(format!(
            "{percent} % of its first rows hold turns (`format: {name}`)"
        )));
    }
    in_words(&texts(source, rows))
}

fn in_text(source: &Source, settings: &NormalizeSettings) -> Result<Option<Doubt>, StageError> {
    let text = words(source, settings)?;
    if text.matches(" +++$+++ ").count() >= 2 {
        return Ok(refused(
            source,
            "these are fields of Cornell's movie dialogues, whose lines stand in one file and whose \
             conversations in another"
                .to_owned(),
            "ConvoKit's `utterances.jsonl` of the same corpus has both and is read",
        ));
    }
    Ok(in_words(&text))
}

fn in_words(text: &str) -> Option<Doubt> {
    let of_names = || names_in_lines(text, is_capital).map(|names| unread_names(&names));
    unknown_marks(text).or_else(of_names)
}

fn unknown_marks(text: &str) -> Option<Doubt> {
    let mark = UNKNOWN_MARKS.iter().find(|mark| text.contains(*mark))?;
    Some(Doubt::Warning(format!(
        "`{mark}` in it marks turns, in a way that no format here reads"
    )))
}

/// Returns the names that most lines of a text begin with, and how many do, if few names do so: the most frequent
/// first. What may be a word of a name is for the caller to say: where a chat is expected, `anna: hi` begins with one too.
pub(super) fn names_in_lines(text: &str, is_word: fn(&str) -> bool) -> Option<Vec<(&str, usize)>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let name_of_line = |line| name_of_line(line, is_word);
    for name in lines.clone().filter_map(name_of_line) {
        *counts.entry(name).or_default() += 1;
    }
    counts.retain(|_, n| *n > 1);
    let n_spoken: usize = counts.values().sum();
    if counts.len() < 2 || 2 * n_spoken < lines.count() {
        return None;
    }
    let mut names: Vec<(&str, usize)> = counts.into_iter().collect();
    names.sort_by_key(|(name, n)| (std::cmp::Reverse(*n), *name));
    Some(names)
}

fn unread_names(names: &[(&str, usize)]) -> Doubt {
    let (first, second) = (names[0].0, names[1].0);
    Doubt::Warning(format!(
        "most of its lines begin with a name, like `{first}:` and `{second}:`: `{{format: speakers, \
         roles: {{{first}: user, {second}: assistant}}}}` would read them as turns"
    ))
}

/// Returns the name that a line begins with, if words follow it.
fn name_of_line(line: &str, is_word: fn(&str) -> bool) -> Option<&str> {
    let (name, said) = line.split_once(": ")?;
    let is_name = !name.is_empty() && name.len() <= 32 && name.split(' ').all(is_word);
    (is_name && !said.trim().is_empty()).then_some(name)
}

fn is_capital(word: &str) -> bool {
    word.chars().next().is_some_and(char::is_uppercase)
        && word
            .chars()
            .all(|c| c.is_alphanumeric() || "._'-".contains(c))
}

fn first_units(source: &Source, settings: &NormalizeSettings) -> Result<Vec<Vec<u8>>, StageError> {
    let bytes_max = settings.row_bytes_max as usize;
    let mut reader = Reader::open(&source.path, source.encoding, source.layout, bytes_max, &[])?;
    let chunk = reader.next()?;
    let Some(Rows::Units { bytes, units }) = chunk.map(|chunk| chunk.rows) else {
        return Ok(Vec::new());
    };
    let skipped = usize::from(source.cells.has_header());
    let units = units.into_iter().skip(skipped).take(ROWS);
    Ok(units.map(|unit| bytes[unit.at].to_vec()).collect())
}
