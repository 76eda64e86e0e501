//! A document as the model reads it, and which of its tokens every number is about.

use tinylm_model::shards::TARGET;
use tinylm_pipeline::choices;

choices! {
    /// Which tokens every number is about.
    pub enum Scored {
        /// Those that training predicts.
        Targets = "targets",
        All = "all",
    }
}

/// A document as the model reads it.
pub(super) struct Text {
    pub(super) ids: Vec<u16>,
    /// As in shards: the role, and whether it is a target.
    pub(super) roles: Vec<u8>,
    /// Of contents, tags excluded.
    pub(super) n_bytes: u64,
    pub(super) source: String,
}

impl Text {
    /// The first token is never scored: nothing stands before it.
    pub(super) fn is_scored(&self, place: usize, scored: Scored) -> bool {
        place > 0 && (scored == Scored::All || self.roles[place] & TARGET != 0)
    }
}
