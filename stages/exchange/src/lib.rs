//! Models in the forms that other programs read: what each of their architectures can express, under
//! which names, and how a model that none expresses is turned into one that computes the same.
//!
//! On the way out it is tensors in, tensors out; the files written here are those that hold all in one, GGUF's and
//! ONNX's. On the way in, [`foreign`] reads others' files, a tensor at a time. A tensor is made when it is asked for ([`Source`](tinylm_model::weights::Source)), so a model is never in memory twice.
//! `DESIGN.md` has the table of architectures and what was decided.

mod change;
mod claim;
pub mod foreign;
pub mod gguf;
pub mod hf;
mod layout;
pub mod onnx;

pub use change::{Change, Form};
pub use claim::Claim;

#[cfg(test)]
mod testing;
