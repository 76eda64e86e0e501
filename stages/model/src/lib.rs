//! Tokens in, loss out: the transformer, its training and its generation.
//!
//! This crate knows nothing of experiment files, stages, runs or the store: it is
//! handed shards, settings and folders, and hands back numbers and weights.

pub mod batches;
#[cfg(test)]
mod bigram;
pub mod checkpoint;
pub mod config;
pub mod engine;
mod order;
pub mod schedule;
pub mod shards;
mod state;
pub mod surgery;
pub mod train;
pub mod validation;
pub mod weights;
