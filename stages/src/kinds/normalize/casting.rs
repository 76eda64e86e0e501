//! Who is the assistant where people talk.
//!
//! A chat has persons, not roles, and a model learns to write the turns of one of them. `assistant`
//! names that one; without it, it is the one who wrote most: there is most to be learnt from. In
//! exports of several chats that is the person whose telephone they are from. Where conversations
//! have names of their own and each has other people, nobody is chosen: whoever opens is the user.

use tinylm_pipeline::{StageError, StageIo};

use super::{
    gathered::{People, people},
    said::role,
    settings::NormalizeSettings,
    source::Source,
};
use crate::shared::template::Role;

const SHOWN: usize = 5;

/// The one who is the assistant, where somebody had to be chosen, and all who speak.
pub(super) struct Chosen {
    pub(super) assistant: String,
    pub(super) people: People,
}

enum Cast {
    /// By hand.
    Named(String),
    Chosen(Chosen),
}

/// Returns the person whose turns are the assistant's, if there is one, and says so where nobody named that one.
pub(super) fn assistant(
    settings: &NormalizeSettings,
    io: &StageIo,
    sources: &[Source],
) -> Result<Option<String>, StageError> {
    Ok(cast(settings, io, sources)?.map(|cast| match cast {
        Cast::Named(name) => name,
        Cast::Chosen(chosen) => {
            io.note(chosen.told());
            chosen.assistant
        }
    }))
}

/// Returns the person who would be chosen.
pub(super) fn to_choose(
    settings: &NormalizeSettings,
    io: &StageIo,
    sources: &[Source],
) -> Result<Option<Chosen>, StageError> {
    Ok(match cast(settings, io, sources)? {
        Some(Cast::Chosen(chosen)) => Some(chosen),
        _ => None,
    })
}

fn cast(
    settings: &NormalizeSettings,
    io: &StageIo,
    sources: &[Source],
) -> Result<Option<Cast>, StageError> {
    let mut all = People::default();
    let mut is_gathered = false;
    for source in sources {
        if source.shape.format.is_gathered()
            && let Some(some) = people(source, settings)?
        {
            is_gathered = true;
            add(&mut all, some);
        }
    }
    if !is_gathered {
        if settings.assistant.is_some() {
            io.warn("`assistant` names somebody of a chat, and none of these files is one");
        }
        return Ok(None);
    }
    if let Some(name) = &settings.assistant {
        let is_known = all.n_messages.iter().any(|(known, _)| known == name);
        return match is_known {
            true => Ok(Some(Cast::Named(name.clone()))),
            false => Err(unknown(name, &all)),
        };
    }
    let roles = sources.iter().flat_map(|source| &source.shape.roles);
    let mut by_hand = roles.filter(|(_, role)| **role == Role::Assistant);
    if let Some((name, _)) = by_hand.find(|(name, _)| has(&all, name)) {
        return Ok(Some(Cast::Named(name.clone())));
    }
    let is_role = |name: &str| role(name, &sources[0].shape.roles).is_some();
    match !all.is_stream || all.n_messages.iter().all(|(name, _)| is_role(name)) {
        true => Ok(None),
        false => chosen(all).map(|chosen| Some(Cast::Chosen(chosen))),
    }
}

/// The same of some files of a corpus, where nobody may be chosen who another file would change.
pub(super) fn assistant_of_part(
    settings: &NormalizeSettings,
    sources: &[Source],
) -> Result<Option<String>, StageError> {
    let mut roles = sources.iter().flat_map(|source| &source.shape.roles);
    let by_hand = roles.find(|(_, role)| **role == Role::Assistant);
    let by_hand = by_hand.map(|(name, _)| name);
    if let Some(name) = settings.assistant.as_ref().or(by_hand) {
        return Ok(Some(name.clone()));
    }
    for source in sources.iter().filter(|one| one.shape.format.is_gathered()) {
        let people = people(source, settings)?.filter(|people| people.is_stream);
        let is_role = |name: &str| role(name, &source.shape.roles).is_some();
        if people.is_some_and(|people| !people.n_messages.iter().all(|(name, _)| is_role(name))) {
            let message = format!(
                "`{}` is a chat, and nobody is said to be the assistant",
                source.file
            );
            return Err(StageError::new(message)
                .cause("in parts, who wrote most would change with every file that comes to the corpus")
                .help("name the person: `assistant: NAME`")
                .is_final());
        }
    }
    Ok(None)
}

fn has(people: &People, name: &str) -> bool {
    people.n_messages.iter().any(|(known, _)| known == name)
}

fn add(all: &mut People, some: People) {
    all.is_stream |= some.is_stream;
    for (name, n_messages) in some.n_messages {
        match all.n_messages.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known += n_messages,
            None => all.n_messages.push((name, n_messages)),
        }
    }
}

fn chosen(people: People) -> Result<Chosen, StageError> {
    // Of two who wrote as much, the one who did not open.
    let most = people.n_messages.iter().max_by_key(|(_, n)| *n);
    let Some((name, _)) = most.filter(|_| people.n_messages.len() > 1) else {
        let names = quoted(people.n_messages.iter().map(|(name, _)| name.as_str()));
        return Err(StageError::new("a dialogue has two sides")
            .cause(format!("{names} speaks alone"))
            .help("`format: text` reads it as raw text")
            .is_final());
    };
    Ok(Chosen {
        assistant: name.clone(),
        people,
    })
}

impl Chosen {
    /// Those who are the user.
    pub(super) fn others(&self) -> impl Iterator<Item = &str> {
        let names = self.people.n_messages.iter().map(|(name, _)| name.as_str());
        names.filter(|name| *name != self.assistant)
    }

    fn told(&self) -> String {
        let (name, others) = (&self.assistant, quoted(self.others()));
        let count = |of: &dyn Fn(&str) -> bool| -> u64 {
            let written = self.people.n_messages.iter();
            written.filter(|(name, _)| of(name)).map(|(_, n)| n).sum()
        };
        let (total, n_messages) = (count(&|_| true), count(&|one| one == name));
        format!(
            "the assistant is `{name}`, who wrote {n_messages} of {total} messages; the user is \
             {others}; `assistant: NAME` chooses another"
        )
    }
}

fn unknown(name: &str, people: &People) -> StageError {
    let names = quoted(people.n_messages.iter().map(|(name, _)| name.as_str()));
    StageError::new(format!("`assistant: {name}` is nobody who speaks"))
        .cause(format!("there are {names}"))
        .help("names count as they are written in the file, capitals too")
        .is_final()
}

fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    match names.len().checked_sub(SHOWN) {
        None | Some(0) => names.join(", "),
        Some(n) => format!("{} and {n} more", names[..SHOWN].join(", ")),
    }
}
