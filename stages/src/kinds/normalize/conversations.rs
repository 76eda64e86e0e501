//! Messages that stand one by one, gathered into conversations.
//!
//! Those of one conversation carry a name that they share (a thread, a tree), or follow each other
//! in time: then a silence of `pause_minutes` ends a conversation, if the assistant has answered in
//! it; a question that is answered the next day stays with its answer. Of a tree of messages, the
//! best ranked reply to each is taken, so that a tree is one conversation and no message is learnt
//! from twice.
//!
//! What is held is bounded: past [`HELD_BYTES_MAX`] the oldest conversation is taken for ended, and
//! what comes of it later is rejected, never taken for one of its own.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use super::said::{Names, Turn, Two, excerpt, push_joined, role};
use crate::shared::template::Role;

const HELD_BYTES_MAX: usize = 64 << 20;

/// One message, as a row or a line holds it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Message {
    pub(super) row: u64,
    /// How many rows it was made of; one row may hold two messages.
    pub(super) n_rows: u64,
    pub(super) who: String,
    pub(super) said: String,
    /// What it shares with the others of its conversation.
    pub(super) conversation: Option<String>,
    pub(super) id: Option<String>,
    pub(super) parent: Option<String>,
    /// How good a reply it is; the least is the best.
    pub(super) rank: f64,
    /// Seconds.
    pub(super) at: Option<f64>,
}

/// What a row of messages holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Heard {
    Message(Message),
    /// Nobody says anything: somebody joined, a picture.
    Notice(String),
}

/// Messages that became a dialogue, or why they did not.
#[derive(Debug, PartialEq)]
pub(super) struct Conversation {
    /// The row that it begins with.
    pub(super) row: u64,
    pub(super) n_rows: u64,
    pub(super) turns: Result<Vec<Turn<'static>>, Left>,
}

impl Conversation {
    pub(super) fn n_bytes(&self) -> u64 {
        let turns = self.turns.iter().flatten();
        64 + turns.map(|(_, said)| 32 + said.len() as u64).sum::<u64>()
    }
}

/// Why messages are in no dialogue.
#[derive(Debug, PartialEq)]
pub(super) enum Left {
    /// They cannot be read.
    Rejected(String),
    /// There is nothing in them to be learnt.
    Filtered(String),
}

/// Who is who.
#[derive(Debug, Clone, Default)]
pub(super) struct Cast {
    pub(super) names: Names,
    /// The person whose turns are the assistant's; all others are users.
    pub(super) assistant: Option<String>,
}

impl Cast {
    /// Returns whom a name stands for, if that is known of it alone.
    pub(super) fn role(&self, name: &str) -> Option<Role> {
        match &self.assistant {
            Some(assistant) if assistant == name => Some(Role::Assistant),
            // A person may be called like a role.
            Some(_) => self.names.get(name).copied().or(Some(Role::User)),
            None => role(name, &self.names),
        }
    }

    /// Returns the role of each message. Where no name tells, two who talk are told apart.
    fn roles(&self, messages: &[Message]) -> Result<Vec<Role>, Left> {
        let opener = messages.first().map_or("", |message| &message.who);
        let mut two = Two::opened_by(opener);
        let is_known = |message: &Message| self.role(&message.who).is_some();
        let n_known = messages.iter().filter(|message| is_known(message)).count();
        let roles = messages.iter().map(|message| {
            let known = self.role(&message.who);
            match known {
                Some(role) => Ok(role),
                None if n_known == 0 => two.role(&message.who),
                None => Err(format!("unknown role `{}`", excerpt(&message.who))),
            }
        });
        roles.collect::<Result<_, _>>().map_err(Left::Rejected)
    }
}

/// Messages of which more may come.
#[derive(Default)]
struct Open {
    messages: Vec<Message>,
    n_bytes: usize,
    /// Whether somebody spoke before the assistant, in the order of the file and against it.
    has_asked: bool,
    has_answered: bool,
    is_answered: bool,
    is_answered_backwards: bool,
}

impl Open {
    fn push(&mut self, message: Message, role: Option<Role>) {
        match role {
            Some(Role::Assistant) => {
                self.is_answered |= self.has_asked;
                self.has_answered = true;
            }
            Some(Role::System) => {}
            _ => {
                self.is_answered_backwards |= self.has_answered;
                self.has_asked = true;
            }
        }
        self.n_bytes += n_bytes(&message);
        self.messages.push(message);
    }

    /// Whether the newest message stands first.
    fn is_backwards(&self) -> bool {
        let at = |message: Option<&Message>| message.and_then(|message| message.at);
        match (at(self.messages.first()), at(self.messages.last())) {
            (Some(first), Some(last)) => last < first,
            _ => false,
        }
    }

    /// Whether a silence before `at` ends it.
    fn is_ended(&self, at: Option<f64>, pause: f64) -> bool {
        let last = self.messages.last().and_then(|message| message.at);
        let is_pause = last
            .zip(at)
            .is_some_and(|(last, at)| (at - last).abs() > pause);
        is_pause
            && match self.is_backwards() {
                true => self.is_answered_backwards,
                false => self.is_answered,
            }
    }
}

fn n_bytes(message: &Message) -> usize {
    size_of::<Message>() + message.who.len() + message.said.len()
}

/// Gathers messages as they come.
pub(super) struct Conversations {
    cast: Cast,
    pause: f64,
    bytes_max: usize,
    open: BTreeMap<u64, Open>,
    /// Of the open conversations by name, the numbers.
    numbers: HashMap<String, u64>,
    /// Of messages that others answer, the conversations.
    places: HashMap<String, String>,
    /// Digests of the names of those that are closed.
    closed: HashSet<u64>,
    n_opened: u64,
    n_held: usize,
    done: VecDeque<Conversation>,
}

impl Conversations {
    pub(super) fn new(cast: Cast, pause_minutes: u64, bytes_max: usize) -> Self {
        Self {
            cast,
            pause: 60.0 * pause_minutes as f64,
            bytes_max,
            open: BTreeMap::new(),
            numbers: HashMap::new(),
            places: HashMap::new(),
            closed: HashSet::new(),
            n_opened: 0,
            n_held: 0,
            done: VecDeque::new(),
        }
    }

    pub(super) fn hear(&mut self, row: u64, heard: Result<Heard, String>) {
        match heard {
            Ok(Heard::Message(message)) => self.take(message),
            Ok(Heard::Notice(why)) => self.leave(row, 1, Left::Filtered(why)),
            Err(why) => self.leave(row, 1, Left::Rejected(why)),
        }
    }

    /// Returns conversations that have ended, of about so many bytes.
    pub(super) fn ended(&mut self, n_bytes: usize) -> Vec<Conversation> {
        let mut room = n_bytes as u64;
        let mut ended = Vec::new();
        while room > 0
            && let Some(conversation) = self.done.pop_front()
        {
            room = room.saturating_sub(conversation.n_bytes());
            ended.push(conversation);
        }
        ended
    }

    /// Ends all that are open.
    pub(super) fn end(&mut self) {
        while let Some((_, open)) = self.open.pop_first() {
            self.close(open);
        }
        self.numbers.clear();
        self.places.clear();
        self.n_held = 0;
    }

    fn leave(&mut self, row: u64, n_rows: u64, why: Left) {
        self.done.push_back(Conversation {
            row,
            n_rows,
            turns: Err(why),
        });
    }

    fn take(&mut self, message: Message) {
        let name = match self.name(&message) {
            Ok(name) => name,
            Err(why) => return self.leave(message.row, message.n_rows, Left::Rejected(why)),
        };
        let is_stream = name.is_empty();
        if !is_stream && self.closed.contains(&digest(&name)) {
            let name = excerpt(&name);
            let why = format!("belongs to `{name}`, which lies too far back: sort the rows by it");
            return self.leave(message.row, message.n_rows, Left::Rejected(why));
        }
        if let Some(id) = &message.id {
            self.places.insert(id.clone(), name.clone());
        }
        let known = self.numbers.get(&name).copied();
        let is_ended = |open: &Open| {
            let is_full = open.n_bytes > self.bytes_max;
            is_stream && (is_full || open.is_ended(message.at, self.pause))
        };
        let ended = known.filter(|number| self.open.get(number).is_some_and(is_ended));
        let number = known.filter(|_| ended.is_none()).unwrap_or(self.n_opened);
        if let Some(open) = ended.and_then(|number| self.open.remove(&number)) {
            self.n_held -= open.n_bytes;
            self.close(open);
        }
        if number == self.n_opened {
            self.n_opened += 1;
            self.numbers.insert(name, number);
        }
        let role = self.cast.role(&message.who);
        self.n_held += n_bytes(&message);
        self.open.entry(number).or_default().push(message, role);
        if self.n_held > HELD_BYTES_MAX {
            self.close_oldest();
        }
    }

    /// Returns the name of a message's conversation; one stream has none.
    fn name(&self, message: &Message) -> Result<String, String> {
        match (&message.conversation, &message.parent, &message.id) {
            (Some(name), ..) => Ok(name.clone()),
            (None, Some(parent), _) => self.places.get(parent).cloned().ok_or_else(|| {
                let parent = excerpt(parent);
                format!("answers `{parent}`, which does not stand before it")
            }),
            (None, None, Some(id)) => Ok(id.clone()),
            (None, None, None) => Ok(String::new()),
        }
    }

    /// Closes conversations until half of the room is free: each time costs a look at all names.
    fn close_oldest(&mut self) {
        while self.n_held > HELD_BYTES_MAX / 2 && self.open.len() > 1 {
            if let Some((_, open)) = self.open.pop_first() {
                self.n_held -= open.n_bytes;
                self.close(open);
            }
        }
        let (open, closed) = (&self.open, &mut self.closed);
        self.numbers.retain(|name, number| {
            let is_open = open.contains_key(number);
            if !is_open {
                closed.insert(digest(name));
            }
            is_open
        });
        let numbers = &self.numbers;
        self.places.retain(|_, name| numbers.contains_key(name));
    }

    fn close(&mut self, open: Open) {
        let mut messages = open.messages;
        if messages.iter().all(|message| message.at.is_some()) {
            let at = |message: &Message| message.at.unwrap_or(0.0);
            // Of one second, the order of the file; where the newest stands first, against it.
            if messages.first().map(at) > messages.last().map(at) {
                messages.reverse();
            }
            messages.sort_by(|a, b| at(a).total_cmp(&at(b)));
        }
        for (row, n_rows, messages) in threads(messages) {
            match messages {
                Some(messages) => {
                    let turns = self.turns(&messages, open.n_bytes);
                    self.done.push_back(Conversation { row, n_rows, turns });
                }
                None => {
                    let why = "not on the best ranked path of its tree".to_owned();
                    self.leave(row, n_rows, Left::Filtered(why));
                }
            }
        }
    }

    fn turns(&self, messages: &[Message], n_bytes: usize) -> Result<Vec<Turn<'static>>, Left> {
        if n_bytes > 2 * self.bytes_max {
            let why = format!("a conversation of more than {} bytes", self.bytes_max);
            return Err(Left::Rejected(why));
        }
        let roles = self.cast.roles(messages)?;
        let mut turns = Vec::new();
        for (message, role) in messages.iter().zip(roles) {
            push_joined(&mut turns, role, Cow::Owned(message.said.clone()));
        }
        let is_answered = turns.iter().any(|(role, _)| *role == Role::Assistant);
        let has_asked = turns.iter().any(|(role, _)| *role == Role::User);
        match is_answered && has_asked {
            true => Ok(turns),
            false => Err(Left::Filtered("nobody answers in it".to_owned())),
        }
    }
}

/// Takes trees apart: the best ranked path of each, and without messages those not on it.
fn threads(messages: Vec<Message>) -> Vec<(u64, u64, Option<Vec<Message>>)> {
    let n_rows = |messages: &[Message]| messages.iter().map(|message| message.n_rows).sum();
    let row = |messages: &[Message]| messages.iter().map(|message| message.row).min();
    if messages.iter().all(|message| message.parent.is_none()) {
        let row = row(&messages).unwrap_or(0);
        return vec![(row, n_rows(&messages), Some(messages))];
    }
    let known: HashSet<String> = messages
        .iter()
        .filter_map(|message| message.id.clone())
        .collect();
    let mut replies: HashMap<Option<String>, Vec<Message>> = HashMap::new();
    for message in messages {
        let parent = message.parent.clone().filter(|id| known.contains(id));
        replies.entry(parent).or_default().push(message);
    }
    let mut threads = Vec::new();
    for root in replies.remove(&None).unwrap_or_default() {
        let mut path = vec![root];
        while let Some(id) = path.last().and_then(|message| message.id.clone()) {
            let Some(mut answers) = replies.remove(&Some(id)) else {
                break;
            };
            // The first of the best.
            answers.sort_by(|a, b| a.rank.total_cmp(&b.rank));
            let mut answers = answers.into_iter();
            path.extend(answers.next());
            threads.extend(answers.map(|other| (other.row, other.n_rows, None)));
        }
        threads.push((path[0].row, n_rows(&path), Some(path)));
    }
    let others = replies.into_values().flatten();
    threads.extend(others.map(|other| (other.row, other.n_rows, None)));
    threads.sort_by_key(|(row, ..)| *row);
    threads
}

fn digest(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}
