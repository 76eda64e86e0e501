//! Tokens in, loss out: the transformer, its training and its generation.
//!
//! This crate knows nothing of experiment files, stages, runs or the store: it is
//! handed shards, settings and folders, and hands back numbers and weights.

pub mod config;
pub mod engine;
