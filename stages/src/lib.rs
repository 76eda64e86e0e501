//! The stage kinds, one file each, listed once.

pub mod template;

#[expect(
    dead_code,
    reason = "the stages that read and write documents are being added"
)]
mod documents;

use tinylm_pipeline::Kind;

/// Returns every kind; `tinylm stages` and the hints are made from this list.
pub fn catalog() -> Vec<Kind> {
    vec![]
}
