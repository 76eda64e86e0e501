//! Rows of two answers to a prompt, of which one was chosen, in the forms that TRL reads.
//!
//! The prompt is a column, or what the two columns of answers begin with: lists of messages, or
//! texts that are marked (`Human:`, `Assistant:`). A row becomes a dialogue whose last turn but one is
//! the chosen answer, and whose last is the rejected one, so that no later stage parts them.

use std::borrow::Cow;

use super::{
    cell::Cell,
    lists::{Messages, system_of},
    marked,
    said::Turn,
};
use crate::shared::template::Role;

const KEYS: [&str; 5] = ["prompt", "question", "chosen", "rejected", "system"];

pub(super) fn reads(name: &str) -> bool {
    KEYS.contains(&name)
}

pub(super) fn read<'a>(row: &'a Cell<'a>, how: Messages<'_>) -> Result<Vec<Turn<'a>>, String> {
    let mut turns = Vec::new();
    if let Some(system) = system_of(row, how.columns)? {
        turns.push((Role::System, Cow::Borrowed(system)));
    }
    let prompt = ["prompt", "question"]
        .into_iter()
        .find(|key| row.filled(key).is_some());
    let prompt = match prompt {
        Some(key) => side(row, key, Role::User, how)?,
        None => Vec::new(),
    };
    let (chosen, rejected) = (
        side(row, "chosen", Role::Assistant, how)?,
        side(row, "rejected", Role::Assistant, how)?,
    );
    let n_shared = chosen
        .iter()
        .zip(&rejected)
        .take_while(|(a, b)| a == b)
        .count();
    // Answers that bring the dialogue along have the prompt in it.
    if n_shared == 0 {
        turns.extend(prompt);
    }
    turns.extend(chosen[..n_shared].iter().cloned());
    match (&chosen[n_shared..], &rejected[n_shared..]) {
        ([(Role::Assistant, better)], [(Role::Assistant, worse)]) => {
            let answers = [(Role::Assistant, better), (Role::Rejected, worse)];
            turns.extend(answers.map(|(role, text)| (role, text.clone())));
        }
        ([], []) => return Err("has the same answer twice".to_owned()),
        _ => return Err("has answers of more than one turn".to_owned()),
    }
    match turns.iter().any(|(role, _)| *role == Role::User) {
        true => Ok(turns),
        false => Err("has no prompt".to_owned()),
    }
}

/// The turns of a column; a text without marks is what one of them says.
fn side<'a>(
    row: &'a Cell<'a>,
    key: &str,
    role: Role,
    how: Messages<'_>,
) -> Result<Vec<Turn<'a>>, String> {
    let cell = row.get(key).ok_or_else(|| format!("has no `{key}`"))?;
    let Some(text) = cell.text() else {
        let mut turns = Vec::new();
        how.list(key, cell, &mut turns)?;
        return Ok(turns);
    };
    let marked = marked::speakers(text, how.names).ok();
    match marked.filter(|turns| turns.len() > 1) {
        Some(turns) => Ok(turns),
        None => Ok(vec![(role, Cow::Borrowed(text))]),
    }
}
