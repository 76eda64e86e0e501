//! Tokens in, loss out: the transformer, its training and its generation.
//!
//! This crate knows nothing of experiment files, stages, runs or the store: it is
//! handed shards, settings and folders, and hands back numbers and weights.

pub mod batches;
#[cfg(test)]
mod bigram;
mod buffer;
pub mod checkpoint;
pub mod config;
mod dfdx_engine;
pub mod engine;
pub mod folder;
mod fused;
pub mod generate;
pub mod kernels;
mod model;
mod noise;
mod ops;
mod order;
pub mod peak;
mod plain;
pub mod profile;
pub mod sampler;
pub mod schedule;
pub mod shards;
mod state;
pub mod surgery;
pub mod train;
pub mod validation;
pub mod weights;

#[cfg(feature = "cuda")]
pub use dfdx_engine::CudaEngine;
pub use dfdx_engine::{CpuEngine, DfdxEngine, EngineSettings, Optimizer, PlainEngine};
pub use noise::Dropout;
