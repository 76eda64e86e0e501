//! The shapes that data comes in, recognised and read.
//!
//! A shape says how one row becomes a dialogue or a text. Recognising is trying: each
//! shape reads the first rows, and the one that can read the most of them is it; so
//! recognition can never disagree with reading. A row that its shape cannot read is an
//! error with a reason, never a guess: an unknown role, a null or a list where text
//! should be.

use std::borrow::Cow;

use tinylm_pipeline::choices;

use super::{
    cell::{Cell, first_text, text_at},
    columns::Columns,
    flat,
    lists::{self, MESSAGE_KEYS, Messages, UTTERANCE_KEYS},
    marked, preferences,
    said::{Names, Said, Turn},
};
use crate::shared::template::Role;

choices! {
    /// How a row is read.
    pub enum Format {
        /// Recognised by its first rows.
        Auto = "auto",
        /// A list of turns with a role each (`messages`, `conversations`, `conversation`).
        Messages = "messages",
        /// `prompt: {text, role, replies: [..]}`: the best ranked reply to each message.
        Tree = "tree",
        /// A row is a turn, with who speaks: Slack's, Telegram's and Instagram's exports, OASST, ConvoKit.
        Turns = "turns",
        /// A list of texts, spoken in turn (`dialog`, `utterances`).
        Utterances = "utterances",
        /// A prompt and its response, each a column.
        Pairs = "pairs",
        /// `prompt`, `chosen` and `rejected`, as texts or as messages: pairs of answers, for `objective: dpo`. It is
        /// never recognised: without it such rows are a prompt and the chosen answer.
        Preferences = "preferences",
        /// `log: [{user utterance, system response}]`.
        DialogStudio = "dialogstudio",
        /// `dialog: [{sender, text}]`.
        ConvAi2 = "conv-ai-2",
        /// `thread: [{userId, text}]` with `users`.
        ConvAi = "conv-ai",
        /// `initial_request`, `question`, `answer`.
        ClariQ = "clariq",
        /// Lines that begin with who speaks: `User: ..`, `AI: ..`.
        Speakers = "speakers",
        /// Turns that begin with `### Human:`, `### Assistant:`, or `### Instruction:`, `### Response:`.
        Headings = "headings",
        /// `[INST] .. [/INST] ..`
        Inst = "inst",
        /// Turns that each end in `__eou__`.
        Eou = "eou",
        /// Text with `<|im_start|>` and `<|im_end|>`.
        Chatml = "chatml",
        /// Messages that begin with a time and a name: WhatsApp's export, and Signal's.
        Whatsapp = "whatsapp",
        /// Numbered lines of a prompt and its response, from 1 in each dialogue: PersonaChat.
        PersonaChat = "personachat",
        /// Raw text: a column, or a whole text file.
        Text = "text",
        /// Raw text, a document a line.
        Lines = "lines",
        /// Raw text, documents between blank lines.
        Paragraphs = "paragraphs",
        /// Raw text, documents between `<|endoftext|>` marks.
        Stories = "stories",
    }
}

/// How rows are read: a shape, the columns given by hand, and further names of roles.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) format: Format,
    pub(crate) columns: Columns,
    pub(crate) roles: Names,
}

const TEXT_KEYS: [&str; 5] = ["text", "story", "content", "document", "completion"];
/// Columns in which a dialogue may be written as text, if it is marked as one.
const MARKED_KEYS: [&str; 9] = [
    "text",
    "story",
    "content",
    "document",
    "completion",
    "chosen",
    "dialogue",
    "dialog",
    "conversation",
];
/// What is asked, what may stand behind it, what is answered.
const PAIR_KEYS: [(&str, Option<&str>, &str); 10] = [
    ("prompt", None, "response"),
    ("instruction", Some("input"), "output"),
    ("instruction", Some("context"), "response"),
    ("question", None, "answer"),
    ("input", None, "output"),
    ("text", None, "response"),
    ("prompt", None, "completion"),
    ("query", None, "response"),
    ("user", None, "assistant"),
    ("prompt", None, "chosen"),
];

impl Format {
    pub(crate) fn name(self) -> String {
        // A choice is always a plain word.
        serde_json::to_value(self).map_or_else(
            |_| String::new(),
            |word| word.as_str().unwrap_or_default().to_owned(),
        )
    }

    /// Whether what a row of it says is a raw text.
    pub(crate) fn is_of_raw_text(self) -> bool {
        matches!(
            self,
            Self::Text | Self::Lines | Self::Paragraphs | Self::Stories
        )
    }

    /// Whether a row of it is a text rather than named values.
    pub(crate) fn is_of_text(self) -> bool {
        matches!(
            self,
            Self::Speakers
                | Self::Headings
                | Self::Inst
                | Self::Eou
                | Self::Chatml
                | Self::Whatsapp
                | Self::PersonaChat
                | Self::Text
                | Self::Lines
                | Self::Paragraphs
                | Self::Stories
        )
    }

    /// Whether a row is a part of a dialogue, and which part is known when others were read.
    pub(super) fn is_gathered(self) -> bool {
        matches!(self, Self::Turns | Self::Whatsapp | Self::PersonaChat)
    }
}

impl Shape {
    /// Returns what a row says, or why it cannot be read.
    pub(crate) fn read<'a>(&self, row: &'a Cell<'a>) -> Result<Said<'a>, String> {
        let turns = match self.format {
            Format::Messages => self.messages().read(row)?,
            Format::Tree => lists::tree(row, &self.roles)?,
            Format::Turns => flat::turn(row, &self.columns, &self.roles)?,
            Format::Utterances => lists::utterances(row, &self.columns)?,
            Format::Pairs => self.pair(row)?,
            Format::Preferences => preferences::read(row, self.messages())?,
            Format::DialogStudio => lists::dialogstudio(row)?,
            Format::ConvAi2 => lists::conv_ai_2(row)?,
            Format::ConvAi => lists::conv_ai(row)?,
            Format::ClariQ => clariq(row)?,
            Format::Speakers | Format::Headings | Format::Inst | Format::Eou | Format::Chatml => {
                return self.read_text(self.text_of(row, &MARKED_KEYS)?);
            }
            _ => return Ok(Said::Text(Cow::Borrowed(self.text_of(row, &TEXT_KEYS)?))),
        };
        Ok(Said::Dialogue(turns))
    }

    /// `read` of a row that is a text.
    pub(crate) fn read_text<'a>(&self, text: &'a str) -> Result<Said<'a>, String> {
        let turns = match self.format {
            Format::Speakers => marked::speakers(text, &self.roles)?,
            Format::Headings => marked::headings(text)?,
            Format::Inst => marked::inst(text)?,
            Format::Eou => marked::eou(text)?,
            Format::Chatml => marked::chatml(text, &self.roles)?,
            _ => return Ok(Said::Text(Cow::Borrowed(text))),
        };
        Ok(Said::Dialogue(turns))
    }

    /// Whether it may look at a column of this name.
    pub(crate) fn reads(&self, name: &str) -> bool {
        let of_pairs = || {
            let names = PAIR_KEYS.iter();
            let mut names =
                names.flat_map(|(ask, more, answer)| [Some(*ask), *more, Some(*answer)]);
            names.any(|known| known == Some(name))
        };
        match self.format {
            Format::Messages => MESSAGE_KEYS.contains(&name) || name == "system",
            Format::Tree => name == "prompt",
            Format::Turns => flat::reads(name, &self.columns),
            Format::Utterances => UTTERANCE_KEYS.contains(&name) || name == "question_id",
            Format::Pairs => of_pairs() || name == "system",
            Format::Preferences => preferences::reads(name),
            Format::DialogStudio => name == "log",
            Format::ConvAi2 => name == "dialog",
            Format::ConvAi => name == "thread" || name == "users",
            Format::ClariQ => ["initial_request", "question", "answer"].contains(&name),
            _ => MARKED_KEYS.contains(&name),
        }
    }

    fn messages(&self) -> Messages<'_> {
        Messages {
            columns: &self.columns,
            names: &self.roles,
        }
    }

    fn text_of<'a>(&self, row: &'a Cell<'a>, keys: &[&str]) -> Result<&'a str, String> {
        if let Some(text) = row.text() {
            return Ok(text);
        }
        match &self.columns.text {
            Some(name) => text_at(row, name),
            None => first_text(row, keys),
        }
    }

    fn pair<'a>(&self, row: &'a Cell<'a>) -> Result<Vec<Turn<'a>>, String> {
        let (ask, more, answer) = self.pair_columns(row)?;
        let prompt = text_at(row, ask)?;
        let more = match more.filter(|name| row.filled(name).is_some()) {
            Some(name) => text_at(row, name)?,
            None => "",
        };
        let prompt = if more.is_empty() {
            Cow::Borrowed(prompt)
        } else {
            Cow::Owned(format!("{prompt}\n{more}"))
        };
        let mut turns = Vec::with_capacity(3);
        if let Some(system) = lists::system_of(row, &self.columns)? {
            turns.push((Role::System, Cow::Borrowed(system)));
        }
        turns.push((Role::User, prompt));
        turns.push((Role::Assistant, Cow::Borrowed(text_at(row, answer)?)));
        Ok(turns)
    }

    fn pair_columns<'s>(
        &'s self,
        row: &Cell,
    ) -> Result<(&'s str, Option<&'s str>, &'s str), String> {
        let columns = &self.columns;
        if let (Some(prompt), Some(response)) = (&columns.prompt, &columns.response) {
            return Ok((prompt, columns.input.as_deref(), response));
        }
        let has = |key: &str| row.get(key).is_some();
        let found = PAIR_KEYS
            .iter()
            .find(|(ask, more, answer)| has(ask) && has(answer) && more.is_none_or(has))
            .or_else(|| {
                let mut without = PAIR_KEYS.iter();
                without.find(|(ask, _, answer)| has(ask) && has(answer))
            });
        let (ask, more, answer) = found.ok_or("has no prompt and response")?;
        Ok((ask, more.filter(|name| has(name)), answer))
    }
}

fn clariq<'a>(row: &'a Cell<'a>) -> Result<Vec<Turn<'a>>, String> {
    let request = text_at(row, "initial_request")?;
    let question = text_at(row, "question")?;
    let mut turns = vec![
        (Role::User, Cow::Borrowed(request)),
        (Role::Assistant, Cow::Borrowed(question)),
    ];
    if row.filled("answer").is_some() {
        let answer = text_at(row, "answer")?;
        if !answer.is_empty() {
            turns.push((Role::User, Cow::Borrowed(answer)));
        }
    }
    Ok(turns)
}
