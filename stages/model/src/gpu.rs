//! Training and generation on a GPU: weights, gradients, moments, keys and values stay on the device, and
//! `model::forward` runs there as everywhere.
//!
//! Two sets of kernels do the same: CUDA's for NVIDIA, and WGSL for the GPUs of every maker.
//!
//! Not another `Backend`, whose gradients and optimizer are this machine's. Those of CUDA are C++ without
//! headers: compiled beforehand for GPUs, and by a C++ compiler for the tests, which need no GPU.

mod adapted;
mod cached;
mod cublaslt;
mod cuda;
#[cfg(test)]
mod emulated;
mod engine;
mod halves;
mod inputs;
mod kernels;
mod launcher;
mod library;
mod memory;
mod opening;
mod ops;
mod optimizer;
#[cfg(feature = "gpu")]
mod portable;
mod product;
mod reader;
mod tape;
#[cfg(test)]
pub(crate) mod tests;
mod tiles;
mod trial;

pub use cublaslt::OWN_PRODUCTS;
pub use cuda::{Found, find, is_card_here, is_driver_here, products};
pub use engine::GpuEngine;
#[cfg(feature = "gpu")]
pub use portable::{FoundPortable, SOFTWARE, find_portable};
pub(crate) use reader::{GpuReader, OnDevice, Read};
pub use trial::trial;
