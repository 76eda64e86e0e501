//! Rows of which each is one turn: exports of chats, and datasets that are tables of messages.

use std::borrow::Cow;

use super::{
    cell::{Cell, first_of},
    columns::Columns,
    conversations::{Heard, Message},
    lists::{rank, said},
    said::{Names, Turn, role},
    when::{seconds_of, since_1970},
};
use crate::shared::template::Role;

/// Columns that say who speaks.
pub(super) const WHO_KEYS: [&str; 12] = [
    "role",
    "from",
    "speaker",
    "sender",
    "sender_name",
    "author",
    "user",
    "username",
    "userId",
    "user_id",
    "bot_id",
    "actor",
];
const SAID_KEYS: [&str; 7] = [
    "content",
    "text",
    "message",
    "utterance",
    "value",
    "body",
    "msg",
];
/// Columns that rows of one conversation share. A thread's name is no other's.
const CONVERSATION_KEYS: [&str; 12] = [
    "conversation_id",
    "message_tree_id",
    "dialogue_id",
    "dialog_id",
    "conv_id",
    "conversation_hash",
    "session_id",
    "chat_id",
    "thread_id",
    "thread_ts",
    "link_id",
    "root",
];
const ID_KEYS: [&str; 2] = ["message_id", "id"];
const PARENT_KEYS: [&str; 4] = ["parent_id", "parent_message_id", "reply-to", "reply_to"];
const TIME_KEYS: [&str; 9] = [
    "ts",
    "timestamp_ms",
    "timestamp",
    "date",
    "time",
    "created_at",
    "created_date",
    "datetime",
    "sent_at",
];
/// Slack's kinds of messages that hold somebody's words.
const SPOKEN_SUBTYPES: [&str; 5] = [
    "thread_broadcast",
    "me_message",
    "file_share",
    "bot_message",
    "reply_broadcast",
];

/// Whether a column of this name may be looked at.
pub(super) fn reads(name: &str, columns: &Columns) -> bool {
    let by_hand = [&columns.role, &columns.content];
    let others = ["rank", "deleted", "type", "subtype"];
    by_hand.iter().any(|column| column.as_deref() == Some(name))
        || others.contains(&name)
        || [
            &WHO_KEYS[..],
            &SAID_KEYS,
            &CONVERSATION_KEYS,
            &ID_KEYS,
            &PARENT_KEYS,
            &TIME_KEYS,
        ]
        .iter()
        .any(|keys| keys.contains(&name))
}

/// What says which rows belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bond {
    /// A name that they share, or whom they answer.
    Name,
    /// When they were said.
    Time,
}

pub(super) fn bond(row: &Cell, columns: &Columns) -> Option<Bond> {
    let has = |keys: &[&str]| first_of(row, keys).is_some();
    let by_hand = columns.conversation.as_deref();
    if by_hand.is_some_and(|name| row.get(name).is_some())
        || has(&CONVERSATION_KEYS)
        || has(&PARENT_KEYS)
    {
        return Some(Bond::Name);
    }
    has(&TIME_KEYS).then_some(Bond::Time)
}

/// Returns who speaks in a row, and in which column that stands.
pub(super) fn who<'a>(row: &'a Cell<'a>, columns: &Columns) -> Option<(String, Cow<'a, str>)> {
    let found = match &columns.role {
        Some(name) => row.filled(name).map(|cell| (name.as_str(), cell)),
        None => WHO_KEYS
            .iter()
            .find_map(|key| Some((*key, row.filled(key)?))),
    };
    let (key, cell) = found?;
    // Some say more of a person than the name.
    let names = ["name", "username", "id"];
    let name = name_of(cell).or_else(|| names.iter().find_map(|key| name_of(cell.get(key)?)))?;
    Some((key.to_owned(), name)).filter(|(_, name)| !name.trim().is_empty())
}

/// A name, which may be a number.
fn name_of<'a>(cell: &'a Cell<'a>) -> Option<Cow<'a, str>> {
    match cell {
        Cell::Text(text) => Some(Cow::Borrowed(text)),
        Cell::Number(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}

/// Returns the column of what is said.
pub(super) fn content<'a>(row: &'a Cell<'a>, columns: &Columns) -> Option<(&'a str, &'a Cell<'a>)> {
    let Cell::Map(entries) = row else {
        return None;
    };
    let find = |key: &str| {
        let mut entries = entries.iter();
        let found = entries.find(|(name, value)| name == key && *value != Cell::Null);
        found.map(|(name, value)| (&**name, value))
    };
    match &columns.content {
        Some(name) => find(name),
        None => SAID_KEYS.iter().find_map(|key| find(key)),
    }
}

/// Reads a row alone: the turn that it is.
pub(super) fn turn<'a>(
    row: &'a Cell<'a>,
    columns: &Columns,
    names: &Names,
) -> Result<Vec<Turn<'a>>, String> {
    let (key, cell) = content(row, columns).ok_or("has no `content`")?;
    let (_, who) = who(row, columns).ok_or("does not say who speaks")?;
    let role = role(&who, names).unwrap_or(Role::Assistant);
    Ok(vec![(role, said(key, cell)?)])
}

/// Reads a row as a message among others.
pub(super) fn heard(cell: &Cell, row: u64, columns: &Columns) -> Result<Heard, String> {
    let Cell::Map(_) = cell else {
        return Err(format!("is {}, not a map with a role", cell.kind()));
    };
    if let Some(notice) = notice(cell) {
        return Ok(Heard::Notice(notice));
    }
    let Some((key, content)) = content(cell, columns) else {
        return Ok(Heard::Notice("says nothing".to_owned()));
    };
    let said = match content {
        Cell::List(parts) if parts.is_empty() => Cow::Borrowed(""),
        content => said(key, content)?,
    };
    if said.trim().is_empty() {
        return Ok(Heard::Notice("says nothing".to_owned()));
    }
    let (_, who) = who(cell, columns).ok_or("does not say who speaks")?;
    let text = |keys: &[&str]| {
        let found = keys.iter().find_map(|key| cell.filled(key));
        found.and_then(name_of).map(Cow::into_owned)
    };
    let is_in_tree = first_of(cell, &PARENT_KEYS).is_some();
    let conversation = match &columns.conversation {
        Some(name) => text(&[name]),
        None => text(&CONVERSATION_KEYS),
    };
    Ok(Heard::Message(Message {
        row,
        n_rows: 1,
        who: who.trim().to_owned(),
        said: said.into_owned(),
        conversation,
        id: text(&ID_KEYS).filter(|_| is_in_tree),
        parent: text(&PARENT_KEYS),
        rank: rank(cell),
        at: TIME_KEYS.iter().find_map(|key| seconds(cell.filled(key)?)),
    }))
}

fn seconds(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Number(number) => Some(since_1970(*number)),
        Cell::Text(text) => seconds_of(text),
        _ => None,
    }
}

/// Returns why a row holds nobody's words, where it says so.
fn notice(row: &Cell) -> Option<String> {
    let text = |key: &str| row.get(key).and_then(Cell::text);
    if row.get("deleted") == Some(&Cell::Bool(true)) {
        return Some("was deleted".to_owned());
    }
    let subtype = text("subtype").filter(|kind| !SPOKEN_SUBTYPES.contains(kind));
    let service = text("type").filter(|kind| *kind == "service");
    let kind = subtype.or(service)?;
    Some(format!("is a notice, `{}`", super::said::excerpt(kind)))
}
