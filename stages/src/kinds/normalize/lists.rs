//! Dialogues that are lists inside a row: of turns with a role each, or of texts.

use std::borrow::Cow;

use super::{
    cell::{Cell, first_of, first_text, text_at},
    columns::Columns,
    said::{Names, Turn, Two, excerpt, in_turn, push_joined, role},
};
use crate::shared::template::Role;

pub(super) const MESSAGE_KEYS: [&str; 8] = [
    "messages",
    "conversations",
    "conversation",
    "dialog",
    "dialogue",
    "turns",
    "items",
    "chat",
];
pub(super) const ROLE_KEYS: [&str; 5] = ["role", "from", "speaker", "author", "sender"];
pub(super) const CONTENT_KEYS: [&str; 5] = ["content", "value", "text", "utterance", "message"];
pub(super) const UTTERANCE_KEYS: [&str; 7] = [
    "dialog",
    "utterances",
    "dialogue",
    "turns",
    "conversation",
    "conversations",
    "data",
];
/// Both sides of an exchange, where a list holds those.
const SIDES: [(&str, &str); 2] = [("human", "assistant"), ("user", "assistant")];

/// How turns with a role each are read.
#[derive(Clone, Copy)]
pub(super) struct Messages<'s> {
    pub(super) columns: &'s Columns,
    pub(super) names: &'s Names,
}

impl Messages<'_> {
    /// Returns the turns of a row.
    pub(super) fn read<'a>(self, row: &'a Cell<'a>) -> Result<Vec<Turn<'a>>, String> {
        let (key, list) = match (&self.columns.messages, row) {
            (Some(name), _) => (name.as_str(), row.get(name)),
            (None, Cell::List(_)) => ("the row", Some(row)),
            (None, _) => first_of(row, &MESSAGE_KEYS)
                .map_or(("messages", None), |(key, cell)| (key, Some(cell))),
        };
        let list = list.ok_or_else(|| format!("has no `{key}`"))?;
        let mut turns = Vec::new();
        if let Some(system) = system_of(row, self.columns)? {
            turns.push((Role::System, Cow::Borrowed(system)));
        }
        self.list(key, list, &mut turns)?;
        Ok(turns)
    }

    pub(super) fn list<'a>(
        self,
        key: &str,
        list: &'a Cell<'a>,
        turns: &mut Vec<Turn<'a>>,
    ) -> Result<(), String> {
        match list {
            Cell::List(items) => {
                turns.reserve(items.len());
                for (idx, item) in items.iter().enumerate() {
                    self.turn(item, turns)
                        .map_err(|why| format!("turn {}: {why}", idx + 1))?;
                }
                Ok(())
            }
            Cell::Text(text) if text.trim_start().starts_with(['[', '{']) => {
                self.json(key, text, turns)
            }
            Cell::Map(_) => self.columns_of_turns(key, list, turns),
            other => Err(format!("`{key}` is {}, not a list", other.kind())),
        }
    }

    /// A list that is written down as text.
    fn json(self, key: &str, text: &str, turns: &mut Vec<Turn>) -> Result<(), String> {
        let list = Cell::parse(text.as_bytes()).map_err(|why| format!("`{key}` is {why}"))?;
        if matches!(list, Cell::Text(_)) {
            return Err(format!("`{key}` is text, not a list"));
        }
        let mut read = Vec::new();
        self.list(key, &list, &mut read)?;
        let owned = |(role, text): Turn| (role, Cow::Owned(text.into_owned()));
        turns.extend(read.into_iter().map(owned));
        Ok(())
    }

    /// A list of roles beside one of contents, as tables hold lists of turns.
    fn columns_of_turns<'a>(
        self,
        key: &str,
        map: &'a Cell<'a>,
        turns: &mut Vec<Turn<'a>>,
    ) -> Result<(), String> {
        let column = |by_hand: &Option<String>, known: &[&str]| {
            let found = match by_hand {
                Some(name) => map.get(name),
                None => first_of(map, known).map(|(_, cell)| cell),
            };
            let list = found.and_then(Cell::list);
            list.ok_or_else(|| format!("`{key}` is a map, not a list"))
        };
        let roles = column(&self.columns.role, &ROLE_KEYS)?;
        let contents = column(&self.columns.content, &CONTENT_KEYS)?;
        if roles.len() != contents.len() {
            let (n, m) = (roles.len(), contents.len());
            return Err(format!("`{key}` has {n} roles and {m} contents"));
        }
        for (idx, (role, content)) in roles.iter().zip(contents).enumerate() {
            let turn = || {
                let role = role.text().ok_or("has a role that is not text")?;
                Ok((self.role(role)?, said("content", content)?))
            };
            let turn = turn().map_err(|why: String| format!("turn {}: {why}", idx + 1))?;
            turns.push(turn);
        }
        Ok(())
    }

    fn turn<'a>(self, item: &'a Cell<'a>, turns: &mut Vec<Turn<'a>>) -> Result<(), String> {
        let Cell::Map(_) = item else {
            return Err(format!("is {}, not a map with a role", item.kind()));
        };
        let by_hand = self.columns.role.is_some() || self.columns.content.is_some();
        if !by_hand && first_of(item, &ROLE_KEYS).is_none() {
            let has = |(ask, answer): &&(&str, &str)| {
                item.filled(ask).is_some() && item.filled(answer).is_some()
            };
            if let Some((ask, answer)) = SIDES.iter().find(has) {
                turns.push((Role::User, Cow::Borrowed(text_at(item, ask)?)));
                turns.push((Role::Assistant, Cow::Borrowed(text_at(item, answer)?)));
                return Ok(());
            }
        }
        let role = match &self.columns.role {
            Some(name) => text_at(item, name)?,
            None => first_text(item, &ROLE_KEYS)?,
        };
        let role = self.role(role)?;
        let (key, content) = match &self.columns.content {
            Some(name) => (name.as_str(), item.get(name)),
            None => first_of(item, &CONTENT_KEYS)
                .map_or((CONTENT_KEYS[0], None), |(key, cell)| (key, Some(cell))),
        };
        let calls = ["tool_calls", "function_call"];
        let is_call = calls.iter().any(|call| item.filled(call).is_some());
        match content {
            // It asks a tool and says nothing; what the tool answers is the next turn.
            None | Some(Cell::Null) if is_call => {}
            None => return Err(format!("has no `{key}`")),
            Some(content) => turns.push((role, said(key, content)?)),
        }
        Ok(())
    }

    fn role(self, name: &str) -> Result<Role, String> {
        role(name, self.names).ok_or_else(|| format!("unknown role `{}`", excerpt(name)))
    }
}

/// Returns a content: text, or parts of which each is.
pub(super) fn said<'a>(key: &str, content: &'a Cell<'a>) -> Result<Cow<'a, str>, String> {
    match content {
        Cell::Text(text) => Ok(Cow::Borrowed(text)),
        Cell::List(parts) if !parts.is_empty() => parts_of(parts),
        other => Err(format!("`{key}` is {}, not text", other.kind())),
    }
}

fn parts_of<'a>(parts: &'a [Cell<'a>]) -> Result<Cow<'a, str>, String> {
    let mut texts = Vec::with_capacity(parts.len());
    for (idx, part) in parts.iter().enumerate() {
        let text = part
            .text()
            .or_else(|| part.get("text").and_then(Cell::text));
        texts.push(text.ok_or_else(|| {
            let kind = part.get("type").and_then(Cell::text).map(excerpt);
            let kind = kind.map_or(part.kind().to_owned(), |kind| format!("`{kind}`"));
            format!("part {} is {kind}, not text", idx + 1)
        })?);
    }
    // Words and links between them stand in one line, texts that are parts each in their own.
    let is_line = parts.iter().any(|part| part.text().is_some());
    Ok(match texts[..] {
        [one] => Cow::Borrowed(one),
        _ => Cow::Owned(texts.join(if is_line { "" } else { "\n" })),
    })
}

/// Returns a row's system prompt.
pub(super) fn system_of<'a>(
    row: &'a Cell<'a>,
    columns: &Columns,
) -> Result<Option<&'a str>, String> {
    let name = match &columns.system {
        Some(name) => name,
        None if row
            .filled("system")
            .is_some_and(|cell| cell.text().is_some()) =>
        {
            "system"
        }
        None => return Ok(None),
    };
    match row.filled(name) {
        None => Ok(None),
        Some(_) => text_at(row, name).map(|text| Some(text).filter(|text| !text.is_empty())),
    }
}

/// Reads a list of texts, spoken in turn.
pub(super) fn utterances<'a>(
    row: &'a Cell<'a>,
    columns: &Columns,
) -> Result<Vec<Turn<'a>>, String> {
    let list = match (&columns.messages, row) {
        (Some(name), _) => row.get(name),
        (None, Cell::List(_)) => Some(row),
        (None, _) => match first_of(row, &UTTERANCE_KEYS) {
            // Benchmarks keep what one user is to ask under that name.
            Some(("turns", _)) if row.get("question_id").is_some() => {
                return Err(
                    "`turns` beside `question_id` may be questions of one user; \
                    where they are spoken in turn, say `columns: {messages: turns}`"
                        .to_owned(),
                );
            }
            found => found.map(|(_, cell)| cell),
        },
    };
    let items = list
        .and_then(Cell::list)
        .ok_or("has no list of utterances")?;
    let mut turns = Vec::with_capacity(items.len());
    for (idx, item) in items.iter().enumerate() {
        let text = item
            .text()
            .ok_or_else(|| format!("utterance {} is {}, not text", idx + 1, item.kind()))?;
        turns.push((in_turn(idx), Cow::Borrowed(text)));
    }
    Ok(turns)
}

/// Reads the best ranked reply to each message of a tree (`prompt: {text, role, replies}`).
pub(super) fn tree<'a>(row: &'a Cell<'a>, names: &Names) -> Result<Vec<Turn<'a>>, String> {
    let mut message = row.get("prompt").ok_or("has no `prompt`")?;
    let mut turns = Vec::new();
    loop {
        let replies = message
            .get("replies")
            .and_then(Cell::list)
            .ok_or("`prompt` has no `replies`")?;
        let name = first_text(message, &ROLE_KEYS)?;
        let role = role(name, names).ok_or_else(|| format!("unknown role `{}`", excerpt(name)))?;
        turns.push((role, Cow::Borrowed(text_at(message, "text")?)));
        let kept = replies
            .iter()
            .filter(|reply| reply.get("deleted") != Some(&Cell::Bool(true)));
        match kept.min_by(|a, b| rank(a).total_cmp(&rank(b))) {
            Some(best) => message = best,
            None => return Ok(turns),
        }
    }
}

/// Returns how good a reply is: 0 is the best, and one that nobody judged the worst.
pub(super) fn rank(reply: &Cell) -> f64 {
    match reply.get("rank") {
        Some(Cell::Number(rank)) => *rank,
        _ => f64::INFINITY,
    }
}

pub(super) fn dialogstudio<'a>(row: &'a Cell<'a>) -> Result<Vec<Turn<'a>>, String> {
    let log = row.get("log").and_then(Cell::list).ok_or("has no `log`")?;
    let mut turns = Vec::with_capacity(2 * log.len());
    for (idx, entry) in log.iter().enumerate() {
        for (key, role) in [
            ("user utterance", Role::User),
            ("system response", Role::Assistant),
        ] {
            let text = text_at(entry, key).map_err(|why| format!("log {}: {why}", idx + 1))?;
            // An empty side is how this format says that only the other one spoke.
            if !text.is_empty() {
                turns.push((role, Cow::Borrowed(text)));
            }
        }
    }
    Ok(turns)
}

/// Joins what one speaker says in a row; speakers are told apart by `who`.
fn joined<'a>(
    items: &'a [Cell<'a>],
    mut who: impl FnMut(&'a Cell<'a>) -> Result<Role, String>,
) -> Result<Vec<Turn<'a>>, String> {
    let mut turns: Vec<Turn> = Vec::with_capacity(items.len());
    for (idx, item) in items.iter().enumerate() {
        let at = |why: String| format!("turn {}: {why}", idx + 1);
        let role = who(item).map_err(at)?;
        let text = text_at(item, "text").map_err(at)?;
        push_joined(&mut turns, role, Cow::Borrowed(text));
    }
    Ok(turns)
}

pub(super) fn conv_ai_2<'a>(row: &'a Cell<'a>) -> Result<Vec<Turn<'a>>, String> {
    let dialog = row
        .get("dialog")
        .and_then(Cell::list)
        .ok_or("has no `dialog`")?;
    let first = dialog.first().ok_or("has no turns")?;
    let mut two = Two::opened_by(text_at(first, "sender")?);
    joined(dialog, |item| {
        let class = item.get("sender_class").and_then(Cell::text);
        match class.and_then(|class| role(class, &Names::new())) {
            Some(role) => Ok(role),
            None => two.role(text_at(item, "sender")?),
        }
    })
}

pub(super) fn conv_ai<'a>(row: &'a Cell<'a>) -> Result<Vec<Turn<'a>>, String> {
    let thread = row
        .get("thread")
        .and_then(Cell::list)
        .ok_or("has no `thread`")?;
    let users = row
        .get("users")
        .and_then(Cell::list)
        .ok_or("has no `users`")?;
    let first = thread.first().ok_or("has no turns")?;
    let mut two = Two::opened_by(text_at(first, "userId")?);
    let bots: Vec<&str> = users
        .iter()
        .filter(|user| {
            let kind = user.get("userType").and_then(Cell::text);
            kind.is_some_and(|kind| kind.ends_with("Bot"))
        })
        .filter_map(|user| user.get("id").and_then(Cell::text))
        .collect();
    joined(thread, |item| {
        let id = text_at(item, "userId")?;
        match bots[..] {
            [bot] if id == bot => Ok(Role::Assistant),
            [_] => Ok(Role::User),
            // Where both are people, or bots.
            _ => two.role(id),
        }
    })
}
