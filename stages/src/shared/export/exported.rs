//! What became of an export, for whoever asked for it and for its card.

use tinylm_exchange::{Claim, hf::Class};

use super::ids::Share;

/// What was written.
pub struct Exported {
    pub class: Class,
    pub claim: Claim,
    /// How many documents have the same ids in the folder as in training; none where none were given.
    pub share: Option<Share>,
    /// The width of the model, and what it became.
    pub widths: (usize, usize),
    pub n_params: usize,
}
