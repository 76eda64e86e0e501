//! One document: a dialogue or a raw text, borrowed from the rows it stands in.

use crate::shared::template::Role;

pub(crate) type Digest = [u8; 32];

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Document<'a> {
    pub(crate) id: Digest,
    pub(crate) group: Digest,
    pub(crate) source: &'a str,
    pub(crate) contents: Contents<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Contents<'a> {
    Text(&'a str),
    Dialogue(Turns<'a>),
}

impl<'a> Contents<'a> {
    /// Returns who says what; nobody says a raw text.
    pub(crate) fn iter(self) -> impl Iterator<Item = (Option<Role>, &'a str)> {
        let (text, turns) = match self {
            Self::Text(text) => (Some((None, text)), None),
            Self::Dialogue(turns) => (None, Some(turns)),
        };
        let turns = turns.into_iter().flat_map(Turns::iter);
        let turns = turns.map(|(role, text)| (Some(role), text));
        text.into_iter().chain(turns)
    }

    pub(crate) fn n_bytes(self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Dialogue(turns) => turns.text().len(),
        }
    }
}

/// The turns of a dialogue: a stretch of two columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turns<'a> {
    pub(super) roles: &'a [Role],
    /// The contents of all rows, end to end.
    pub(super) contents: &'a str,
    /// Where the first content begins, and where each ends.
    pub(super) start: i32,
    pub(super) ends: &'a [i32],
}

impl<'a> Turns<'a> {
    pub(crate) fn iter(self) -> impl Iterator<Item = (Role, &'a str)> {
        let starts = std::iter::once(self.start).chain(self.ends.iter().copied());
        let places = starts.zip(self.ends);
        let contents =
            places.map(move |(start, end)| &self.contents[start as usize..*end as usize]);
        self.roles.iter().copied().zip(contents)
    }

    /// Returns its contents end to end.
    pub(super) fn text(self) -> &'a str {
        let end = self.ends.last().copied().unwrap_or(self.start);
        &self.contents[self.start as usize..end as usize]
    }
}

impl PartialEq for Turns<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}
