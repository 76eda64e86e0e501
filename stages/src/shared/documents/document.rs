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

    /// Returns the answer of a pair that was rejected; nothing of another document.
    pub(crate) fn rejected(self) -> Option<&'a str> {
        match self {
            Self::Dialogue(turns) if turns.roles.last() == Some(&Role::Rejected) => {
                turns.iter().last().map(|(_, text)| text)
            }
            _ => None,
        }
    }

    /// Returns a pair's dialogue with the answer that was chosen, and any other document as it is.
    pub(crate) fn chosen(self) -> Self {
        match self {
            Self::Dialogue(turns) if self.rejected().is_some() => {
                let n = turns.roles.len() - 1;
                Self::Dialogue(Turns {
                    roles: &turns.roles[..n],
                    ends: &turns.ends[..n],
                    ..turns
                })
            }
            other => other,
        }
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
