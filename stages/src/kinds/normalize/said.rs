//! What a row says, and whom the names in it stand for.

use std::{borrow::Cow, collections::BTreeMap};

use crate::shared::template::Role;

/// What a row says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said<'a> {
    Text(Cow<'a, str>),
    Dialogue(Vec<Turn<'a>>),
}

impl Said<'_> {
    /// Whether it is a text, or a dialogue with an answer in it.
    pub(crate) fn is_answered(&self) -> bool {
        match self {
            Self::Text(_) => true,
            Self::Dialogue(turns) => turns.iter().any(|(role, _)| *role == Role::Assistant),
        }
    }
}

pub(crate) type Turn<'a> = (Role, Cow<'a, str>);

/// Further names of roles, by hand.
pub(crate) type Names = BTreeMap<String, Role>;

/// The names that stand for a role wherever they are met, the one that is believed first.
const NAMES: [(Role, &[&str]); 3] = [
    (Role::User, &["user", "human", "prompter"]),
    (
        Role::Assistant,
        &["assistant", "ai", "bot", "chatgpt", "gpt", "agent", "model"],
    ),
    (Role::System, &["system"]),
];
/// Names that stand for one where a field holds nothing else: as the start of a line they are
/// words like any other. What a tool returns is heard, as a user is.
const FIELD_NAMES: [(Role, &[&str]); 3] = [
    (
        Role::User,
        &["tool", "function", "observation", "function_response"],
    ),
    (Role::Assistant, &["function_call", "bing", "bard"]),
    (Role::System, &["developer"]),
];

/// Returns whom a name in a field of its own stands for.
pub(crate) fn role(name: &str, more: &Names) -> Option<Role> {
    let known = |name: &str| ranked(name, &NAMES).or_else(|| ranked(name, &FIELD_NAMES));
    let by_hand = more.get(name).copied();
    by_hand.or_else(|| known(name).map(|(role, _)| role))
}

/// Returns whom a name at the start of a line stands for, and how many names of that role are
/// believed before it.
pub(super) fn spoken(name: &str) -> Option<(Role, usize)> {
    ranked(name, &NAMES)
}

fn ranked(name: &str, of: &[(Role, &[&str])]) -> Option<(Role, usize)> {
    let name = name.trim().to_ascii_lowercase();
    of.iter().find_map(|(role, names)| {
        let rank = names.iter().position(|known| *known == name)?;
        Some((*role, rank))
    })
}

/// Who speaks in turn: the user begins.
pub(super) fn in_turn(idx: usize) -> Role {
    if idx.is_multiple_of(2) {
        Role::User
    } else {
        Role::Assistant
    }
}

/// Two who talk: whoever begins is the user, and there is no third.
pub(super) struct Two<'a> {
    opener: &'a str,
    other: Option<&'a str>,
}

impl<'a> Two<'a> {
    pub(super) fn opened_by(opener: &'a str) -> Self {
        Self {
            opener,
            other: None,
        }
    }

    pub(super) fn role(&mut self, name: &'a str) -> Result<Role, String> {
        if name == self.opener {
            Ok(Role::User)
        } else if name == *self.other.get_or_insert(name) {
            Ok(Role::Assistant)
        } else {
            Err(format!("`{}` is a third speaker", excerpt(name)))
        }
    }
}

/// Adds a turn, or to the last one where the same role goes on.
pub(super) fn push_joined<'a>(turns: &mut Vec<Turn<'a>>, role: Role, text: Cow<'a, str>) {
    match turns.last_mut() {
        Some((last, said)) if *last == role => {
            let said = said.to_mut();
            said.push('\n');
            said.push_str(&text);
        }
        _ => turns.push((role, text)),
    }
}

/// Returns the first characters of a text, for a message.
pub(super) fn excerpt(text: &str) -> String {
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(40).collect();
    let start = start.escape_debug().to_string();
    if chars.next().is_some() {
        format!("{start}..")
    } else {
        start
    }
}
