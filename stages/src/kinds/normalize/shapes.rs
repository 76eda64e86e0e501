//! The shapes that data comes in, recognised and read.
//!
//! A shape says how one row becomes a dialogue or a text. Recognising is trying: each
//! shape reads the first rows, and the one that can read the most of them is it; so
//! recognition can never disagree with reading. A row that its shape cannot read is an
//! error with a reason, never a guess: an unknown role, a null or a list where text
//! should be.

use std::{borrow::Cow, collections::BTreeMap};

use tinylm_pipeline::{choices, settings};

use crate::kinds::normalize::cell::Cell;
use crate::shared::template::Role;

choices! {
    /// How a row is read.
    pub enum Format {
        /// Recognised by its first rows.
        Auto = "auto",
        /// A list of turns with a role each (`messages`, `conversations`, `conversation`).
        Messages = "messages",
        /// A list of texts, spoken in turn (`dialog`, `utterances`).
        Utterances = "utterances",
        /// A prompt and its response, each a column.
        Pairs = "pairs",
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
        /// `[INST] .. [/INST] ..`
        Inst = "inst",
        /// Turns that each end in `__eou__`.
        Eou = "eou",
        /// Text with `<|im_start|>` and `<|im_end|>`.
        Chatml = "chatml",
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

settings! {
    /// Columns by hand, where a shape's own names do not fit.
    pub struct Columns {
        /// The column of raw text, or of a dialogue written as text.
        pub text: Option<String> = None,
        /// The column of what was asked.
        pub prompt: Option<String> = None,
        /// The column of what was answered.
        pub response: Option<String> = None,
        /// A column whose text is put behind the prompt, where it has one.
        pub input: Option<String> = None,
        /// The column of the system prompt.
        pub system: Option<String> = None,
        /// The column of turns.
        pub messages: Option<String> = None,
        /// Inside a turn, the name of who speaks.
        pub role: Option<String> = None,
        /// Inside a turn, the name of what is said.
        pub content: Option<String> = None,
    }
}

impl Columns {
    pub(crate) const NONE: Self = Self {
        text: None,
        prompt: None,
        response: None,
        input: None,
        system: None,
        messages: None,
        role: None,
        content: None,
    };

    /// Returns the columns named, for reading only those of a table.
    pub(crate) fn named(&self) -> Vec<&str> {
        let all = [
            &self.text,
            &self.prompt,
            &self.response,
            &self.input,
            &self.system,
            &self.messages,
        ];
        all.into_iter().filter_map(Option::as_deref).collect()
    }
}

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

/// How rows are read: a shape, the columns given by hand, and further names of roles.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) format: Format,
    pub(crate) columns: Columns,
    pub(crate) roles: BTreeMap<String, Role>,
}

const MESSAGE_KEYS: [&str; 6] = [
    "messages",
    "conversations",
    "conversation",
    "dialog",
    "dialogue",
    "turns",
];
const ROLE_KEYS: [&str; 5] = ["role", "from", "speaker", "author", "sender"];
const CONTENT_KEYS: [&str; 5] = ["content", "value", "text", "utterance", "message"];
const UTTERANCE_KEYS: [&str; 6] = [
    "dialog",
    "utterances",
    "dialogue",
    "turns",
    "conversation",
    "conversations",
];
const TEXT_KEYS: [&str; 5] = ["text", "story", "content", "document", "completion"];
/// What is asked, what may stand behind it, what is answered.
const PAIR_KEYS: [(&str, Option<&str>, &str); 9] = [
    ("prompt", None, "response"),
    ("instruction", Some("input"), "output"),
    ("instruction", Some("context"), "response"),
    ("question", None, "answer"),
    ("input", None, "output"),
    ("text", None, "response"),
    ("prompt", None, "completion"),
    ("query", None, "response"),
    ("user", None, "assistant"),
];

/// Shapes of rows with names, the surest first.
const ROW_FORMATS: [Format; 9] = [
    Format::ClariQ,
    Format::DialogStudio,
    Format::ConvAi,
    Format::ConvAi2,
    Format::Messages,
    Format::Utterances,
    Format::Pairs,
    Format::Speakers,
    Format::Text,
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
                | Self::Inst
                | Self::Eou
                | Self::Chatml
                | Self::Text
                | Self::Lines
                | Self::Paragraphs
                | Self::Stories
        )
    }
}

/// Returns the shape of most of `rows` and the share of them that it can read.
pub(crate) fn recognised(rows: &[Cell], known: &Shape) -> Option<(Format, f64)> {
    let mut best: Option<(Format, f64)> = None;
    for format in ROW_FORMATS {
        let shape = Shape {
            format,
            ..known.clone()
        };
        let n_read = rows.iter().filter(|row| shape.read(row).is_ok()).count();
        let share = n_read as f64 / rows.len().max(1) as f64;
        if share > best.map_or(0.0, |(_, share)| share) {
            best = Some((format, share));
        }
    }
    best
}

impl Shape {
    /// Returns what a row says, or why it cannot be read.
    pub(crate) fn read<'a>(&self, row: &'a Cell<'a>) -> Result<Said<'a>, String> {
        let turns = match self.format {
            Format::Messages => self.messages(row)?,
            Format::Utterances => utterances(row, self.columns.messages.as_deref())?,
            Format::Pairs => self.pair(row)?,
            Format::DialogStudio => dialogstudio(row)?,
            Format::ConvAi2 => conv_ai_2(row)?,
            Format::ConvAi => conv_ai(row)?,
            Format::ClariQ => clariq(row)?,
            Format::Speakers | Format::Inst | Format::Eou | Format::Chatml => {
                return self.read_text(self.text_of(row)?);
            }
            _ => return Ok(Said::Text(Cow::Borrowed(self.text_of(row)?))),
        };
        Ok(Said::Dialogue(turns))
    }

    /// `read` of a row that is a text.
    pub(crate) fn read_text<'a>(&self, text: &'a str) -> Result<Said<'a>, String> {
        let turns = match self.format {
            Format::Speakers => speakers(text, &self.roles)?,
            Format::Inst => inst(text)?,
            Format::Eou => eou(text)?,
            Format::Chatml => chatml(text, &self.roles)?,
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
            Format::Utterances => UTTERANCE_KEYS.contains(&name),
            Format::Pairs => of_pairs() || name == "system",
            Format::DialogStudio => name == "log",
            Format::ConvAi2 => name == "dialog",
            Format::ConvAi => name == "thread" || name == "users",
            Format::ClariQ => ["initial_request", "question", "answer"].contains(&name),
            _ => TEXT_KEYS.contains(&name),
        }
    }

    fn text_of<'a>(&self, row: &'a Cell<'a>) -> Result<&'a str, String> {
        if let Some(text) = row.text() {
            return Ok(text);
        }
        match &self.columns.text {
            Some(name) => text_at(row, name),
            None => first_text(row, &TEXT_KEYS),
        }
    }

    fn messages<'a>(&self, row: &'a Cell<'a>) -> Result<Vec<Turn<'a>>, String> {
        let (key, list) = match (&self.columns.messages, row) {
            (Some(name), _) => (name.as_str(), row.get(name)),
            (None, Cell::List(_)) => ("the row", Some(row)),
            (None, _) => first_of(row, &MESSAGE_KEYS)
                .map_or(("messages", None), |(key, cell)| (key, Some(cell))),
        };
        let list = list.ok_or_else(|| format!("has no `{key}`"))?;
        let items = list
            .list()
            .ok_or_else(|| format!("`{key}` is {}, not a list", list.kind()))?;
        let mut turns = Vec::with_capacity(items.len() + 1);
        if let Some(system) = self.system_of(row)? {
            turns.push((Role::System, Cow::Borrowed(system)));
        }
        for (idx, item) in items.iter().enumerate() {
            let turn = self
                .message(item)
                .map_err(|why| format!("turn {}: {why}", idx + 1))?;
            turns.push(turn);
        }
        Ok(turns)
    }

    fn message<'a>(&self, item: &'a Cell<'a>) -> Result<Turn<'a>, String> {
        let Cell::Map(_) = item else {
            return Err(format!("is {}, not a map with a role", item.kind()));
        };
        let role = match &self.columns.role {
            Some(name) => text_at(item, name)?,
            None => first_text(item, &ROLE_KEYS)?,
        };
        let content = match &self.columns.content {
            Some(name) => text_at(item, name)?,
            None => first_text(item, &CONTENT_KEYS)?,
        };
        Ok((self.role(role)?, Cow::Borrowed(content)))
    }

    fn role(&self, name: &str) -> Result<Role, String> {
        role(name, &self.roles).ok_or_else(|| format!("unknown role `{}`", excerpt(name)))
    }

    fn system_of<'a>(&self, row: &'a Cell<'a>) -> Result<Option<&'a str>, String> {
        let name = match &self.columns.system {
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
        if let Some(system) = self.system_of(row)? {
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

/// Returns whom a name in the data stands for.
pub(crate) fn role(name: &str, more: &BTreeMap<String, Role>) -> Option<Role> {
    if let Some(role) = more.get(name) {
        return Some(*role);
    }
    match name.trim().to_ascii_lowercase().as_str() {
        "human" | "user" | "prompter" => Some(Role::User),
        "gpt" | "assistant" | "agent" | "bot" | "model" | "ai" | "chatgpt" => Some(Role::Assistant),
        "system" => Some(Role::System),
        _ => None,
    }
}

/// Returns the first characters of a text, for a message.
fn excerpt(text: &str) -> String {
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(40).collect();
    let start = start.escape_debug().to_string();
    if chars.next().is_some() {
        format!("{start}..")
    } else {
        start
    }
}

fn text_at<'a>(row: &'a Cell<'a>, key: &str) -> Result<&'a str, String> {
    let cell = row.get(key).ok_or_else(|| format!("has no `{key}`"))?;
    cell.text()
        .ok_or_else(|| format!("`{key}` is {}, not text", cell.kind()))
}

fn first_of<'a, 'k>(row: &'a Cell<'a>, keys: &[&'k str]) -> Option<(&'k str, &'a Cell<'a>)> {
    keys.iter().find_map(|key| Some((*key, row.get(key)?)))
}

fn first_text<'a>(row: &'a Cell<'a>, keys: &[&str]) -> Result<&'a str, String> {
    match first_of(row, keys) {
        Some((key, _)) => text_at(row, key),
        None => Err(format!("has no `{}`", keys.first().unwrap_or(&"text"))),
    }
}

/// Who speaks in turn: the user begins.
fn in_turn(idx: usize) -> Role {
    if idx.is_multiple_of(2) {
        Role::User
    } else {
        Role::Assistant
    }
}

fn utterances<'a>(row: &'a Cell<'a>, column: Option<&str>) -> Result<Vec<Turn<'a>>, String> {
    let list = match (column, row) {
        (Some(name), _) => row.get(name),
        (None, Cell::List(_)) => Some(row),
        (None, _) => first_of(row, &UTTERANCE_KEYS).map(|(_, cell)| cell),
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

fn dialogstudio<'a>(row: &'a Cell<'a>) -> Result<Vec<Turn<'a>>, String> {
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
        match turns.last_mut() {
            Some((last, said)) if *last == role => {
                let said = said.to_mut();
                said.push('\n');
                said.push_str(text);
            }
            _ => turns.push((role, Cow::Borrowed(text))),
        }
    }
    Ok(turns)
}

/// Two who talk: whoever begins is the user, and there is no third.
struct Two<'a> {
    opener: &'a str,
    other: Option<&'a str>,
}

impl<'a> Two<'a> {
    fn opened_by(opener: &'a str) -> Self {
        Self {
            opener,
            other: None,
        }
    }

    fn role(&mut self, name: &'a str) -> Result<Role, String> {
        if name == self.opener {
            Ok(Role::User)
        } else if name == *self.other.get_or_insert(name) {
            Ok(Role::Assistant)
        } else {
            Err(format!("`{}` is a third speaker", excerpt(name)))
        }
    }
}

fn conv_ai_2<'a>(row: &'a Cell<'a>) -> Result<Vec<Turn<'a>>, String> {
    let dialog = row
        .get("dialog")
        .and_then(Cell::list)
        .ok_or("has no `dialog`")?;
    let first = dialog.first().ok_or("has no turns")?;
    let mut two = Two::opened_by(text_at(first, "sender")?);
    joined(dialog, |item| {
        let class = item.get("sender_class").and_then(Cell::text);
        match class.and_then(|class| role(class, &BTreeMap::new())) {
            Some(role) => Ok(role),
            None => two.role(text_at(item, "sender")?),
        }
    })
}

fn conv_ai<'a>(row: &'a Cell<'a>) -> Result<Vec<Turn<'a>>, String> {
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

/// Returns who speaks in a line and what, where it begins with a name.
pub(crate) fn speaker<'a>(
    line: &'a str,
    roles: &BTreeMap<String, Role>,
) -> Option<(Role, &'a str)> {
    let (name, said) = line.split_once(':')?;
    let name = name.trim().trim_start_matches("<bos>");
    let name = name.trim_start_matches('<').trim_end_matches('>');
    if name.len() > 16 {
        return None;
    }
    let said = said.trim();
    let said = said.strip_suffix("<eos>").map_or(said, str::trim_end);
    Some((role(name, roles)?, said))
}

fn speakers<'a>(text: &'a str, roles: &BTreeMap<String, Role>) -> Result<Vec<Turn<'a>>, String> {
    let mut turns: Vec<Turn> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match (speaker(line, roles), turns.last_mut()) {
            (Some((role, said)), _) => turns.push((role, Cow::Borrowed(said))),
            (None, Some((_, said))) => {
                let said = said.to_mut();
                said.push('\n');
                said.push_str(line.trim_end());
            }
            (None, None) => {
                return Err(format!("`{}` names no speaker", excerpt(line)));
            }
        }
    }
    Ok(turns)
}

fn inst(text: &str) -> Result<Vec<Turn<'_>>, String> {
    let text = text.trim();
    let text = text.strip_prefix("<s>").unwrap_or(text);
    let mut parts = text.split("[INST]");
    if parts.next().is_some_and(|before| !before.trim().is_empty()) {
        return Err("does not begin with `[INST]`".to_owned());
    }
    let mut turns = Vec::new();
    for part in parts {
        let (asked, answered) = part
            .split_once("[/INST]")
            .ok_or("an `[INST]` has no `[/INST]`")?;
        turns.push((Role::User, Cow::Borrowed(asked.trim())));
        let answered = answered.trim().trim_end_matches("<s>").trim_end();
        let answered = answered.strip_suffix("</s>").unwrap_or(answered).trim();
        if !answered.is_empty() {
            turns.push((Role::Assistant, Cow::Borrowed(answered)));
        }
    }
    Ok(turns)
}

fn eou(text: &str) -> Result<Vec<Turn<'_>>, String> {
    let text = text.trim();
    let text = text.strip_suffix("__eou__").unwrap_or(text);
    let said = text.split("__eou__").enumerate();
    Ok(said
        .map(|(idx, said)| (in_turn(idx), Cow::Borrowed(said.trim())))
        .collect())
}

fn chatml<'a>(text: &'a str, roles: &BTreeMap<String, Role>) -> Result<Vec<Turn<'a>>, String> {
    let mut parts = text.split("<|im_start|>");
    if parts.next().is_some_and(|before| !before.trim().is_empty()) {
        return Err("there is text before the first `<|im_start|>`".to_owned());
    }
    let mut turns = Vec::new();
    for part in parts {
        let (name, rest) = part.split_once('\n').ok_or("a turn has no content")?;
        let role = role(name, roles).ok_or_else(|| format!("unknown role `{}`", excerpt(name)))?;
        let (content, after) = rest.split_once("<|im_end|>").unwrap_or((rest, ""));
        if !after.trim().is_empty() {
            return Err("there is text behind an `<|im_end|>`".to_owned());
        }
        turns.push((role, Cow::Borrowed(content.trim())));
    }
    Ok(turns)
}
