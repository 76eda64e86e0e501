//! The optimizers there are, and which of them updates which tensor.

use tinylm_settings::choices;

use crate::config::Role;

choices! {
    /// The rule that turns gradients into changes of weights.
    pub enum Optimizer {
        Adamw = "adamw",
        /// Muon for the matrices inside blocks, AdamW for everything else.
        Muon = "muon",
    }
}

impl Optimizer {
    /// Returns whether Muon, not AdamW, updates tensors of this role.
    pub(crate) fn is_muon_for(self, role: Role) -> bool {
        self == Optimizer::Muon && role.is_hidden()
    }

    /// Moments kept for each number of a tensor.
    pub fn n_moments(self, role: Role) -> usize {
        if self.is_muon_for(role) { 1 } else { 2 }
    }
}
