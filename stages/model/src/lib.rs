//! Tokens in, loss out: the transformer, its training and its generation.
//!
//! This crate knows nothing of experiment files, stages, runs or the store: it is
//! handed shards, settings and folders, and hands back numbers and weights.

mod adapted;
pub mod adapter;
mod backend;
pub mod batches;
#[cfg(test)]
mod bigram;
mod buffer;
pub mod checkpoint;
pub mod config;
mod dfdx_engine;
pub mod dpo;
pub mod engine;
pub mod folder;
mod fused;
pub mod generate;
pub mod gpu;
mod initial;
pub mod kernels;
pub mod machine;
pub mod memory;
mod model;
mod moments;
mod noise;
mod ops;
mod optimizer;
mod order;
pub mod peak;
mod plain;
pub mod profile;
pub mod reduction;
pub mod sampler;
pub mod schedule;
pub mod shards;
#[cfg(test)]
#[path = "../../../tests/skipped/mod.rs"]
mod skipped;
mod state;
pub mod surgery;
pub mod trace;
pub mod train;
pub mod tree;
pub mod validation;
pub mod weights;

#[cfg(feature = "cuda")]
pub use dfdx_engine::CudaEngine;
pub use dfdx_engine::{CpuEngine, DfdxEngine, PlainEngine};
pub use engine::EngineSettings;
pub use gpu::GpuEngine;
pub use noise::Dropout;
pub use optimizer::Optimizer;
