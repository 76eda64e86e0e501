//! Recognising a shape by the first rows, or the first lines.
//!
//! Recognising is trying, so it cannot disagree with reading. Raw text is what nothing else is: a
//! column of text can always be read as that, so a shape of dialogues that reads most of the rows is
//! taken before it.

use std::collections::HashSet;

use memchr::memmem;

use super::{
    cell::Cell,
    columns::Columns,
    conversations::Heard,
    find::{END_OF_TEXT, Layout},
    flat::{self, Bond},
    marked::{END_OF_UTTERANCE, headed, speaker},
    personachat,
    shapes::{Format, Shape},
    whatsapp,
};

/// Shapes of rows with names, the surest first.
const ROW_FORMATS: [Format; 14] = [
    Format::ClariQ,
    Format::DialogStudio,
    Format::ConvAi,
    Format::ConvAi2,
    Format::Messages,
    Format::Tree,
    Format::Utterances,
    Format::Pairs,
    Format::Turns,
    Format::Chatml,
    Format::Headings,
    Format::Inst,
    Format::Eou,
    Format::Speakers,
];
/// A shape that reads so many of the rows is taken before raw text.
const ENOUGH: f64 = 0.9;

/// Returns the shape that can read the most of `rows`.
pub(super) fn recognised(rows: &[Cell], known: &Shape) -> Option<Format> {
    let mut best: Option<(Format, f64)> = None;
    for format in ROW_FORMATS {
        if format == Format::Turns && !are_turns(rows, known) {
            continue;
        }
        let share = share(format, rows, known);
        if share > best.map_or(0.0, |(_, share)| share) {
            best = Some((format, share));
        }
    }
    let text = share(Format::Text, rows, known);
    match best {
        Some((format, share)) if share >= ENOUGH || share >= text => Some(format),
        _ => Some(Format::Text).filter(|_| text > 0.0),
    }
}

/// Returns the share of rows that a shape can read.
pub(super) fn share(format: Format, rows: &[Cell], known: &Shape) -> f64 {
    let shape = Shape {
        format,
        ..known.clone()
    };
    let n_read = match format {
        Format::Turns => rows.iter().filter(|row| is_message(row, known)).count(),
        _ => rows.iter().filter(|row| is_read(&shape, row)).count(),
    };
    n_read as f64 / rows.len().max(1) as f64
}

/// Returns what is wrong with a row that holds a list and is of no shape.
pub(super) fn why_not(row: &Cell, known: &Shape) -> Option<String> {
    let errors = [Format::Messages, Format::Utterances].map(|format| {
        let shape = Shape {
            format,
            ..known.clone()
        };
        shape.read(row).err()
    });
    let is_told = |why: &String| !why.starts_with("has no") && !why.ends_with("a map with a role");
    errors.into_iter().flatten().find(is_told)
}

fn is_message(row: &Cell, known: &Shape) -> bool {
    flat::heard(row, 1, &known.columns).is_ok()
}

/// Whether a row is read, and as more than a text without marks.
fn is_read(shape: &Shape, row: &Cell) -> bool {
    let is_marked = shape.format.is_of_text() && !shape.format.is_of_raw_text();
    let said = shape.read(row);
    said.is_ok_and(|said| !is_marked || said.is_answered())
}

/// Whether rows are turns of persons who meet again, and something says which belong together.
fn are_turns(rows: &[Cell], known: &Shape) -> bool {
    let columns = &known.columns;
    if columns.text.is_some() {
        return false;
    }
    let said: Vec<&Cell> = rows
        .iter()
        .filter(|row| matches!(flat::heard(row, 1, columns), Ok(Heard::Message(_))))
        .collect();
    let bonds = said.iter().filter_map(|row| flat::bond(row, columns));
    let (named, timed): (Vec<Bond>, Vec<Bond>) = bonds.partition(|bond| *bond == Bond::Name);
    if said.len() < 2 || (2 * named.len()) >= said.len() {
        return said.len() >= 2;
    }
    let people: HashSet<String> = said
        .iter()
        .filter(|row| is_of_a_chat(row, columns))
        .filter_map(|row| flat::who(row, columns))
        .map(|(_, name)| name.into_owned())
        .collect();
    let is_met_again = people.len() >= 2 && people.len() <= (said.len() / 2).max(2);
    timed.len() == said.len() && is_met_again
}

/// Whether what says who speaks is a chat's, and not that of a book, a letter or a review.
fn is_of_a_chat(row: &Cell, columns: &Columns) -> bool {
    let has = |name: &str| row.get(name).is_some();
    let key = flat::who(row, columns).map(|(key, _)| key);
    match key.as_deref() {
        Some("author") => matches!(row.get("author"), Some(Cell::Map(_))),
        Some("from") => !has("to") && !has("subject"),
        Some("user" | "username" | "bot_id") => has("ts"),
        Some("userId" | "user_id") => false,
        key => key.is_some(),
    }
}

/// Returns the shape of a text file by its first bytes, of which the last line may be cut.
pub(super) fn text_format(head: &str, is_cut: bool, shape: &Shape) -> Format {
    let has = |what: &str| memmem::find(head.as_bytes(), what.as_bytes()).is_some();
    let lines: Vec<&str> = head
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let lines = &lines[..lines.len().saturating_sub(usize::from(is_cut))];
    let share = |fits: &dyn Fn(&&&str) -> bool| {
        lines.iter().filter(|line| fits(line)).count() as f64 / lines.len().max(1) as f64
    };
    if has("<|im_start|>") {
        return Format::Chatml;
    }
    if has(END_OF_TEXT) {
        return Format::Stories;
    }
    // Messages go on for some lines, so the share of those that begin one says little.
    let heads = || lines.iter().filter_map(|line| whatsapp::Head::read(line));
    let begins_with_head = lines
        .first()
        .is_some_and(|line| whatsapp::Head::read(line).is_some());
    if begins_with_head && heads().filter(whatsapp::Head::is_named).count() >= 2 {
        return Format::Whatsapp;
    }
    if headed(head).is_some() && (has("### Assistant:") || has("### Response:")) {
        return Format::Headings;
    }
    let candidates = [
        (Format::Eou, share(&|line| line.contains(END_OF_UTTERANCE))),
        (Format::Inst, share(&|line| line.contains("[INST]"))),
        (Format::PersonaChat, personachat::share(lines)),
        (
            Format::Pairs,
            share(&|line| line.matches('\t').count() == 1),
        ),
        (
            Format::Speakers,
            share(&|line| speaker(line, &shape.roles).is_some()),
        ),
    ];
    for (format, share) in candidates {
        // A speaker may go on for some lines.
        let enough = if format == Format::Speakers {
            0.5
        } else {
            ENOUGH
        };
        if share >= enough {
            return format;
        }
    }
    Format::Text
}

pub(super) fn text_layout(format: Format) -> Layout {
    match format {
        Format::Lines | Format::Inst | Format::Eou | Format::PersonaChat => Layout::Lines,
        Format::Stories => Layout::Separated,
        Format::Paragraphs | Format::Speakers | Format::Headings => Layout::Paragraphs,
        Format::Chatml => Layout::Chatml,
        _ => Layout::Whole,
    }
}
