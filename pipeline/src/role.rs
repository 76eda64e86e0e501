//! The roles of a kind: how many stages it reads, and as what.

use crate::content::Content;

/// All that a kind reads.
#[derive(Debug, Clone, Copy)]
pub enum Roles {
    Fixed(&'static [Role]),
    /// Whatever the author names (`command`).
    Any,
}

#[derive(Debug, Clone, Copy)]
pub struct Role {
    pub name: &'static str,
    pub about: &'static str,
    /// The sorts of artifact that may fill it; none named is any.
    pub takes: &'static [Content],
    pub required: bool,
    /// Whether several stages may fill it, in order.
    pub many: bool,
}

impl Role {
    pub const fn one(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            takes: &[],
            required: true,
            many: false,
        }
    }

    pub const fn many(name: &'static str, about: &'static str) -> Self {
        Self {
            many: true,
            ..Self::one(name, about)
        }
    }

    #[must_use]
    pub const fn optional(self) -> Self {
        Self {
            required: false,
            ..self
        }
    }

    #[must_use]
    pub const fn takes(self, takes: &'static [Content]) -> Self {
        Self { takes, ..self }
    }
}
