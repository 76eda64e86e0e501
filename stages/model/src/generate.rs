//! Generation: a model folder in, logits out, without a tape.
//!
//! A `Model` holds the weights, packed for reading fast; nothing in it changes, so any number
//! of `Session`s share one. A session holds the keys and values of the tokens fed to it.
//!
//! This is not the training engine with gradients switched off: that one works on many
//! rows, keeps what the way back needs and has no memory of the tokens before. The two
//! compute the same function, with the same kernels but for the products, and tests hold
//! their logits within 1e-4 of each other.

mod attention;
mod cache;
pub(crate) mod chorus;
mod continuation;
mod forward;
mod model;
mod pass;
mod product;
mod reader;
mod scratch;
mod session;
mod slab;
mod team;
mod weights;

pub use chorus::{Chorus, Left};
pub use continuation::{Continuation, GenerateError, Rules, Step};
pub use model::Model;
pub(crate) use model::Stored;
pub use reader::{Fed, FeedError, Reader, Sequence};
pub use session::Session;
pub use weights::OpenError;

#[cfg(test)]
pub(crate) mod tests;
