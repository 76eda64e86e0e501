//! PersonaChat's text files: numbered lines, from 1 in each dialogue.
//!
//! A line is a persona (`1 your persona: i ski.`) or an exchange (`3 hi<TAB>hello<TAB><TAB>others`).
//! The model's own persona is a system prompt; the partner's is nobody's words, since the model is
//! not told it.

use super::{
    conversations::{Heard, Message},
    csv::not_utf8,
};

const SILENCE: &str = "__SILENCE__";

/// Returns the share of lines that hold a persona or an exchange, and are counted from 1.
pub(super) fn share(lines: &[&str]) -> f64 {
    let mut last = 0;
    let fits = |line: &&&str| {
        let Some((number, said)) = numbered(line) else {
            return false;
        };
        let is_next = number == 1 || number == last + 1;
        last = number;
        is_next && (is_persona(said).is_some() || said.contains('\t'))
    };
    lines.iter().filter(fits).count() as f64 / lines.len().max(1) as f64
}

fn numbered(line: &str) -> Option<(u64, &str)> {
    let (number, said) = line.split_once(' ')?;
    Some((number.parse().ok()?, said))
}

fn is_persona(said: &str) -> Option<(bool, &str)> {
    let own = said.strip_prefix("your persona:").map(|said| (true, said));
    own.or_else(|| Some((false, said.strip_prefix("partner's persona:")?)))
}

/// Reads lines one by one.
#[derive(Default)]
pub(super) struct Lines {
    n_dialogues: u64,
}

impl Lines {
    pub(super) fn take(&mut self, line: &[u8], row: u64) -> Vec<Result<Heard, String>> {
        let line = std::str::from_utf8(line).map_err(|error| not_utf8(&error));
        let read = line.and_then(|line| numbered(line).ok_or("has no number".to_owned()));
        let (number, said) = match read {
            Ok(read) => read,
            Err(why) => return vec![Err(why)],
        };
        self.n_dialogues += u64::from(number == 1);
        let message = |who: &str, said: &str, n_rows| Message {
            row,
            n_rows,
            who: who.to_owned(),
            said: said.trim().to_owned(),
            conversation: Some(self.n_dialogues.to_string()),
            ..Message::default()
        };
        if let Some((is_own, persona)) = is_persona(said) {
            return vec![Ok(match is_own {
                true => Heard::Message(message("system", persona, 1)),
                false => Heard::Notice("is the partner's persona".to_owned()),
            })];
        }
        let mut fields = said.split('\t');
        let (asked, answered) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        let sides = [("user", asked), ("assistant", answered)];
        let sides = sides
            .iter()
            .filter(|(_, said)| !said.trim().is_empty() && *said != SILENCE);
        let heard: Vec<_> = sides
            .enumerate()
            .map(|(idx, (who, said))| Ok(Heard::Message(message(who, said, u64::from(idx == 0)))))
            .collect();
        match heard.is_empty() {
            true => vec![Ok(Heard::Notice("says nothing".to_owned()))],
            false => heard,
        }
    }
}
