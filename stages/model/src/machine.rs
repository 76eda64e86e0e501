//! The machine that an engine runs on.

use std::fs;

pub use tinylm_settings::{Device, Gpus};

use crate::{gpu, kernels};

#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    pub device: Device,
    /// The kernels chosen for this CPU, by name.
    pub kernels: String,
    /// Memory that training may use, where the system tells.
    pub memory_bytes: Option<u64>,
}

impl Machine {
    /// This machine's CPU as it is now, before an engine takes its memory.
    pub fn here() -> Self {
        Machine {
            device: Device::Cpu,
            kernels: kernels::name().to_owned(),
            memory_bytes: available_memory(),
        }
    }

    /// The device that is asked for, to be trained on, before an engine takes its memory; the error says what is
    /// missing.
    pub fn with(device: Device) -> Result<Self, String> {
        match device {
            Device::Cpu => Ok(Self::here()),
            Device::Cuda(gpus) => Self::with_gpus(gpus, &gpu::products()?),
            Device::Gpu => Self::with_any_gpu(),
        }
    }

    /// The same to read a model on, which multiplies by kernels alone.
    pub fn to_read(device: Device) -> Result<Self, String> {
        match device {
            Device::Cuda(gpus) => Self::with_gpus(gpus, gpu::OWN_PRODUCTS),
            device => Self::with(device),
        }
    }

    #[cfg(feature = "gpu")]
    fn with_any_gpu() -> Result<Self, String> {
        let found = gpu::find_portable()?;
        Ok(Machine {
            device: Device::Gpu,
            kernels: found.kernels(),
            memory_bytes: Some(found.total_bytes),
        })
    }

    #[cfg(not(feature = "gpu"))]
    fn with_any_gpu() -> Result<Self, String> {
        Err("this tinylm was built without the feature `gpu`".to_owned())
    }

    /// These GPUs, before an engine takes their memory; the error says what is missing. All must be alike.
    fn with_gpus(gpus: Gpus, products: &str) -> Result<Self, String> {
        let mut each = gpus.each().map(|gpu| Self::with_gpu(gpu, products));
        let mut machine = each
            .next()
            .unwrap_or_else(|| Err("no GPU is named".to_owned()))?;
        for other in each {
            let other = other?;
            machine.refuse_other(&other)?;
            machine.memory_bytes = machine.memory_bytes.min(other.memory_bytes);
        }
        machine.device = Device::Cuda(gpus);
        Ok(machine)
    }

    fn with_gpu(gpu: Gpus, products: &str) -> Result<Self, String> {
        let found = gpu::find(gpu.first())?;
        Ok(Machine {
            device: Device::Cuda(gpu),
            kernels: found.kernels(products),
            memory_bytes: Some(found.total_bytes),
        })
    }

    /// Refuses one that is to share a training and computes otherwise: what kernels of another kind compute are
    /// other bits, and then a sum would hang on who made which part.
    pub fn refuse_other(&self, other: &Machine) -> Result<(), String> {
        match self.kernels == other.kernels {
            true => Ok(()),
            false => Err(format!(
                "`{}` computes with {} and `{}` with {}; several must be alike",
                other.device, other.kernels, self.device, self.kernels
            )),
        }
    }
}

/// Memory that can be had without swapping, where the system tells.
fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    // In a container its limit; the word `max` there is no limit.
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = limit.and_then(|limit| limit.trim().parse::<u64>().ok());
    Some(limit.map_or(kilobytes << 10, |limit| limit.min(kilobytes << 10)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_that_share_a_training_are_alike_to_the_products() {
        let of = |device: &str, products| Machine {
            device: device.parse().unwrap(),
            kernels: format!("NVIDIA X, sm_90a, {products}"),
            memory_bytes: None,
        };
        let first = of("cuda:0", "products of cuBLASLt 12.4.5");
        let alike = of("cuda:1", "products of cuBLASLt 12.4.5");
        assert_eq!(first.refuse_other(&alike), Ok(()));
        let why = first.refuse_other(&of("cuda:2", "own products"));
        let expected = "`cuda:2` computes with NVIDIA X, sm_90a, own products and `cuda:0` with \
                        NVIDIA X, sm_90a, products of cuBLASLt 12.4.5; several must be alike";
        assert_eq!(why.unwrap_err(), expected);
    }
}
