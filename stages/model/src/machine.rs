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

    /// The device that is asked for, before an engine takes its memory; the error says what is missing.
    pub fn with(device: Device) -> Result<Self, String> {
        match device {
            Device::Cpu => Ok(Self::here()),
            Device::Cuda(gpus) => Self::with_gpus(gpus),
            Device::Gpu => Self::with_any_gpu(),
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

    /// These GPUs, before an engine takes their memory; the error says what is missing. All must be alike: what
    /// kernels of another kind compute are other bits, and then a sum would hang on who made which part.
    fn with_gpus(gpus: Gpus) -> Result<Self, String> {
        let found = gpu::find(gpus.first())?;
        let (kernels, mut least) = (found.kernels(), found.total_bytes);
        for number in gpus.numbers().skip(1) {
            let other = gpu::find(number)?;
            if other.kernels() != kernels {
                let first = gpus.first();
                return Err(format!(
                    "GPU {number} computes with {} and GPU {first} with {kernels}; several must be alike",
                    other.kernels()
                ));
            }
            least = least.min(other.total_bytes);
        }
        Ok(Machine {
            device: Device::Cuda(gpus),
            kernels,
            memory_bytes: Some(least),
        })
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
