//! What a model is given to continue: a text, or as much of a dialogue as its context holds.

use super::error::SpeakError;
use crate::shared::{template::Role, tokens::Tokenizer};

/// Ids to be continued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    pub ids: Vec<u16>,
    /// How many at the beginning stay when the context is full.
    pub n_stay: usize,
    /// Turns that were left out because the context is too short for all.
    pub n_turns_left_out: usize,
}

impl Prompt {
    /// A text to be continued, behind the mark that texts begin with, if they do.
    pub fn of_text(tokenizer: &Tokenizer, text: &str) -> Result<Prompt, SpeakError> {
        let begin = tokenizer.generation().bos_id;
        let mut ids: Vec<u32> = begin.into_iter().collect();
        let n_stay = ids.len();
        ids.extend(tokenizer.encode(text)?);
        Ok(Prompt {
            ids: narrow(&ids)?,
            n_stay,
            n_turns_left_out: 0,
        })
    }

    /// A dialogue of which the next turn is the model's, as much of it as the context holds
    /// beside an answer of some length.
    pub fn of_chat(
        tokenizer: &Tokenizer,
        system: Option<&str>,
        turns: &[(Role, String)],
        (context, max_tokens): (usize, usize),
    ) -> Result<Prompt, SpeakError> {
        let room = context - max_tokens.min(context / 2);
        let system: Vec<(Role, &str)> = system
            .map(|text| (Role::System, text))
            .into_iter()
            .collect();
        let frame = tokenizer.render_chat(&system, true)?;
        let without = |first: usize| {
            let turns = turns[first..]
                .iter()
                .map(|(role, text)| (*role, text.as_str()));
            let all: Vec<(Role, &str)> = system.iter().copied().chain(turns).collect();
            tokenizer.render_chat(&all, true)
        };
        let (mut first, mut ids) = (0, without(0)?);
        if ids.len() > room {
            // Halved again and again: one exchange less at a time would render a long dialogue as
            // often as it has turns.
            let starts = exchanges(turns);
            let (mut low, mut high) = (1, starts.len().saturating_sub(1));
            while low < high {
                let middle = low.midpoint(high);
                match without(starts[middle])?.len() <= room {
                    true => high = middle,
                    false => low = middle + 1,
                }
            }
            // A single turn that does not fit is cropped when it is read.
            first = starts.get(high).copied().unwrap_or(0);
            ids = without(first)?;
        }
        let n_stay = frame.iter().zip(&ids).take_while(|(a, b)| a == b).count();
        Ok(Prompt {
            ids: narrow(&ids)?,
            n_stay: n_stay.min(context / 2),
            n_turns_left_out: first,
        })
    }
}

/// Where exchanges begin: the first turn, and every later one of the user.
fn exchanges(turns: &[(Role, String)]) -> Vec<usize> {
    let begins = |(idx, (role, _)): (usize, &(Role, String))| {
        (idx == 0 || *role == Role::User).then_some(idx)
    };
    turns.iter().enumerate().filter_map(begins).collect()
}

pub(crate) fn narrow(ids: &[u32]) -> Result<Vec<u16>, SpeakError> {
    let narrowed = ids
        .iter()
        .map(|&id| u16::try_from(id).map_err(|_| SpeakError::Id(id)));
    narrowed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchanges_leave_whole() {
        let turn = |role| (role, String::new());
        let turns = [
            Role::User,
            Role::Assistant,
            Role::User,
            Role::User,
            Role::Assistant,
        ]
        .map(turn);
        assert_eq!(exchanges(&turns), [0, 2, 3]);
    }
}
