//! The roles of a kind: how many stages it reads, and as what.

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
    pub required: bool,
    /// Whether several stages may fill it, in order.
    pub many: bool,
}

impl Role {
    pub const fn one(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            required: true,
            many: false,
        }
    }

    pub const fn many(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            required: true,
            many: true,
        }
    }

    pub const fn optional(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            required: false,
            many: false,
        }
    }
}
