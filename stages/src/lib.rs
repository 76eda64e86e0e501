//! The stage kinds, one file each in [`kinds`], and what several of them need in [`shared`].

pub mod datasets;
pub mod kinds;
pub mod shared;
#[cfg(test)]
#[path = "../../tests/skipped/mod.rs"]
mod skipped;
pub mod survey;

pub use kinds::catalog;
pub use shared::hub::reach_hub;
pub use tinylm_pipeline::spec::nearest;
