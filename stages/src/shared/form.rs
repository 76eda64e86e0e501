//! The form of a dialogue that an imported model brings along, as its tokenizer's artifact holds it.
//!
//! Our own four templates are known by a name. A model from elsewhere was trained with marks of
//! its own; they are found once, when it is imported ([`probe`]), and written down in full, so
//! that nothing runs a foreign template when a model speaks, trains or is measured.

use serde::{Deserialize, Serialize};

use super::template::{Form, Mark, Role};

pub mod probe;

/// A [`Form`] that is written into `generation.json`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OwnForm {
    pub stops: Vec<String>,
    pub bos: Option<String>,
    pub eos: String,
    pub before_dialogue: Vec<OwnMark>,
    pub before_text: Vec<OwnMark>,
    pub after_text: Vec<OwnMark>,
    pub system: OwnTurn,
    pub user: OwnTurn,
    pub assistant: OwnTurn,
    /// What is said before the first turn where nobody says anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_system: Option<String>,
    /// Whether the model was trained on turns.
    pub knows_turns: bool,
}

/// The marks before and behind a content.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OwnTurn {
    pub open: Vec<OwnMark>,
    pub close: Vec<OwnMark>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OwnMark {
    Token(String),
    Text(String),
    Hidden(String),
}

impl OwnForm {
    /// Returns a form of which every word lives as long as the program. A tokenizer is opened a
    /// few times in a process and its form is some hundred bytes, so they are never given back.
    pub(crate) fn leaked(&self) -> &'static Form {
        let turn = |turn: &OwnTurn| (leaked_marks(&turn.open), leaked_marks(&turn.close));
        Box::leak(Box::new(Form {
            specials: leaked_words(&self.specials()),
            stops: leaked_words(&self.stops),
            bos: self.bos.as_deref().map(leaked_word),
            eos: leaked_word(&self.eos),
            before_dialogue: leaked_marks(&self.before_dialogue),
            after_dialogue: &[],
            before_text: leaked_marks(&self.before_text),
            after_text: leaked_marks(&self.after_text),
            turns: [turn(&self.system), turn(&self.user), turn(&self.assistant)],
        }))
    }

    /// Returns every token that it writes or ends at, each once.
    pub(crate) fn specials(&self) -> Vec<String> {
        let turns = [&self.system, &self.user, &self.assistant].into_iter();
        let of_turns = turns.flat_map(|turn| turn.open.iter().chain(&turn.close));
        let outside = self.before_dialogue.iter().chain(&self.before_text);
        let tokens = outside.chain(&self.after_text).chain(of_turns);
        let tokens = tokens.filter_map(|mark| match mark {
            OwnMark::Token(name) | OwnMark::Hidden(name) => Some(name.clone()),
            OwnMark::Text(_) => None,
        });
        let ends = self.stops.iter().chain([&self.eos]).cloned();
        let mut specials = Vec::new();
        for token in tokens.chain(ends) {
            if !specials.contains(&token) {
                specials.push(token);
            }
        }
        specials
    }

    /// Returns the form of a model that knows no turns: texts between marks, and `User:` and
    /// `Assistant:` where somebody chats all the same.
    pub(crate) fn of_texts(bos: Option<&str>, eos: &str) -> Self {
        let hidden = |name: &str| OwnMark::Hidden(name.to_owned());
        let text = |text: &str| OwnMark::Text(text.to_owned());
        let line = vec![text("\n")];
        let turn = |word: &str| OwnTurn {
            open: vec![text(word)],
            close: line.clone(),
        };
        Self {
            stops: vec![eos.to_owned()],
            bos: bos.map(str::to_owned),
            eos: eos.to_owned(),
            before_dialogue: bos.map(hidden).into_iter().collect(),
            before_text: bos.map(hidden).into_iter().collect(),
            after_text: vec![hidden(eos)],
            system: OwnTurn {
                open: Vec::new(),
                close: line.clone(),
            },
            user: turn("User:"),
            assistant: OwnTurn {
                open: vec![text("Assistant:")],
                close: vec![OwnMark::Token(eos.to_owned()), text("\n")],
            },
            default_system: None,
            knows_turns: false,
        }
    }

    /// Returns turns with the default system message before them, unless they bring one.
    pub(crate) fn with_system<'a>(&'a self, turns: &[(Role, &'a str)]) -> Vec<(Role, &'a str)> {
        let has_one = turns.first().is_some_and(|(role, _)| *role == Role::System);
        let default = self.default_system.as_deref().filter(|_| !has_one);
        let default = default.map(|text| (Role::System, text));
        default.into_iter().chain(turns.iter().copied()).collect()
    }
}

fn leaked_word(word: &str) -> &'static str {
    Box::leak(word.to_owned().into_boxed_str())
}

fn leaked_words(words: &[String]) -> &'static [&'static str] {
    let words: Vec<&'static str> = words.iter().map(|word| leaked_word(word)).collect();
    Box::leak(words.into_boxed_slice())
}

fn leaked_marks(marks: &[OwnMark]) -> &'static [Mark] {
    let marks = marks.iter().map(|mark| match mark {
        OwnMark::Token(name) => Mark::Token(leaked_word(name)),
        OwnMark::Text(text) => Mark::Text(leaked_word(text)),
        OwnMark::Hidden(name) => Mark::Hidden(leaked_word(name)),
    });
    Box::leak(marks.collect::<Vec<_>>().into_boxed_slice())
}
