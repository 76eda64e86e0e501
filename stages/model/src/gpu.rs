//! Training and generation on a GPU: weights, gradients, moments, keys and values stay on the device, and
//! `model::forward` runs there as everywhere.
//!
//! Not another `Backend`, whose gradients and optimizer are this machine's. The kernels are CUDA C++ without
//! headers: compiled beforehand for GPUs, and by a C++ compiler for the tests, which need no GPU.

mod cached;
mod cuda;
#[cfg(test)]
mod emulated;
mod engine;
mod inputs;
mod kernels;
mod launcher;
mod memory;
mod ops;
mod optimizer;
mod product;
mod reader;
mod tape;
#[cfg(test)]
pub(crate) mod tests;

pub use cuda::{Found, find};
pub use engine::GpuEngine;
pub(crate) use reader::{GpuReader, OnDevice, Read};
