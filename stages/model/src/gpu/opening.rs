//! Which launcher a device is, and whether a model may go there.

use tinylm_settings::Device;

#[cfg(feature = "gpu")]
use super::portable::Portable;
use super::{
    cuda::{self, Cuda},
    launcher::Launcher,
};
use crate::{config::ModelConfig, engine::EngineError, ops::Result};

/// Refuses a model whose heads are too wide.
pub(crate) fn check_heads(launcher: &dyn Launcher, config: &ModelConfig) -> Result<()> {
    let (d_head, widest) = (config.d_head(), launcher.widest_head());
    match d_head <= widest {
        true => Ok(()),
        false => Err(EngineError::Device(format!(
            "heads of {d_head} numbers are too wide for this GPU, whose kernels take {widest}; give the model more of them"
        ))),
    }
}

/// What is done on a GPU: a library makes a training's products, and of reading none, where a token's bits depend on
/// nothing beside it.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Work {
    Training,
    Reading,
}

/// Opens a GPU.
pub(crate) fn open(device: Device, work: Work) -> Result<Box<dyn Launcher>> {
    match device {
        Device::Cpu => Err(EngineError::Device("a processor is no GPU".to_owned())),
        Device::Cuda(gpus) => {
            let library = match work {
                Work::Training => cuda::library().map_err(EngineError::Device)?,
                Work::Reading => None,
            };
            Ok(Box::new(Cuda::open(gpus.first(), library)?))
        }
        #[cfg(feature = "gpu")]
        Device::Gpu => Ok(Box::new(Portable::open()?)),
        #[cfg(not(feature = "gpu"))]
        Device::Gpu => {
            let why = "this tinylm was built without the feature `gpu`";
            Err(EngineError::Device(why.to_owned()))
        }
    }
}
