//! Training and generation on a GPU: weights, gradients, moments, keys and values stay on the device, and
//! `model::forward` runs there as everywhere.
//!
//! Two sets of kernels do the same: CUDA's for NVIDIA, and WGSL for the GPUs of every maker.
//!
//! Not another `Backend`, whose gradients and optimizer are this machine's. Those of CUDA are C++ without
//! headers: compiled beforehand for GPUs, and by a C++ compiler for the tests, which need no GPU.

mod adapted;
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
#[cfg(feature = "gpu")]
mod portable;
mod product;
mod reader;
mod tape;
#[cfg(test)]
pub(crate) mod tests;

pub use cuda::{Found, find};
pub use engine::GpuEngine;
#[cfg(feature = "gpu")]
pub use portable::{FoundPortable, SOFTWARE, find_portable};
pub(crate) use reader::{GpuReader, OnDevice, Read};

use launcher::Launcher;

use tinylm_settings::Device;

use crate::{config::ModelConfig, engine::EngineError, ops::Result};

/// Refuses a model whose heads are too wide.
fn check_heads(launcher: &dyn Launcher, config: &ModelConfig) -> Result<()> {
    let (d_head, widest) = (config.d_head(), launcher.widest_head());
    match d_head <= widest {
        true => Ok(()),
        false => Err(EngineError::Device(format!(
            "heads of {d_head} numbers are too wide for this GPU, whose kernels take {widest}; give the model more of them"
        ))),
    }
}

/// Opens a GPU.
fn open(device: Device) -> Result<Box<dyn Launcher>> {
    match device {
        Device::Cpu => Err(EngineError::Device("a processor is no GPU".to_owned())),
        Device::Cuda(gpus) => Ok(Box::new(cuda::Cuda::open(gpus.first())?)),
        #[cfg(feature = "gpu")]
        Device::Gpu => Ok(Box::new(portable::Portable::open()?)),
        #[cfg(not(feature = "gpu"))]
        Device::Gpu => {
            let why = "this tinylm was built without the feature `gpu`";
            Err(EngineError::Device(why.to_owned()))
        }
    }
}
