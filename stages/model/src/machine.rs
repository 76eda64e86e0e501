//! The machine that an engine runs on.

use std::fs;

pub use tinylm_settings::Device;

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

    /// The GPU of this number, before an engine takes its memory; the error says what is missing.
    pub fn with_gpu(number: usize) -> Result<Self, String> {
        let found = gpu::find(number)?;
        Ok(Machine {
            device: Device::Cuda(number),
            kernels: found.kernels(),
            memory_bytes: Some(found.total_bytes),
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
