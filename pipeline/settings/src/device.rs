//! Where a stage computes: this machine's CPU, or one or several of its GPUs.
//!
//! Stands beside settings because everybody who must agree on it can import this crate and no other:
//! the command line, the runner that lends a device to one heavy stage at a time, and the model.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    #[default]
    Cpu,
    Cuda(Gpus),
    /// The GPU that the system thinks best, of whatever maker.
    Gpu,
}

/// One GPU or several of a machine, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gpus(u64);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a device")]
pub struct NotADevice(String);

impl Gpus {
    /// The one of the lowest number.
    pub const FIRST: Self = Self(1);

    /// None of a number that no machine has.
    pub fn one(number: usize) -> Option<Self> {
        let number = u32::try_from(number).ok()?;
        1_u64.checked_shl(number).map(Self)
    }

    /// The lowest number: what one alone does, this one does.
    pub fn first(self) -> usize {
        self.0.trailing_zeros() as usize
    }

    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// From the lowest to the highest.
    pub fn numbers(self) -> impl Iterator<Item = usize> {
        (0..u64::BITS as usize).filter(move |number| self.0 >> number & 1 == 1)
    }

    /// The same alone, in the same order.
    pub fn each(self) -> impl Iterator<Item = Self> {
        self.numbers().filter_map(Self::one)
    }

    /// Numbers between commas, each once.
    fn read(text: &str) -> Option<Self> {
        text.split(',').try_fold(Self(0), |all, number| {
            let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            let one = Self::one(number.parse().ok().filter(|_| is_number)?)?;
            (all.0 & one.0 == 0).then_some(Self(all.0 | one.0))
        })
    }
}

impl Device {
    /// The first GPU.
    pub const CUDA: Self = Self::Cuda(Gpus::FIRST);

    /// The first of several.
    pub fn alone(self) -> Self {
        match self {
            Self::Cuda(gpus) => Self::Cuda(Gpus(gpus.0 & gpus.0.wrapping_neg())),
            other => other,
        }
    }

    /// Each GPU of several as a device of its own; any other device is itself.
    pub fn each(self) -> Vec<Self> {
        match self {
            Self::Cpu | Self::Gpu => vec![self],
            Self::Cuda(gpus) => gpus.each().map(Self::Cuda).collect(),
        }
    }
}

impl FromStr for Device {
    type Err = NotADevice;

    /// Reads `cpu`, `gpu`, `cuda` (the first GPU), `cuda:N` or `cuda:N,M`.
    fn from_str(text: &str) -> Result<Self, NotADevice> {
        let numbers = match text {
            "cpu" => return Ok(Self::Cpu),
            // As others call the GPUs of these makers.
            "gpu" | "mps" | "metal" | "vulkan" => return Ok(Self::Gpu),
            "cuda" => "0",
            other => other.strip_prefix("cuda:").unwrap_or_default(),
        };
        let gpus = Gpus::read(numbers).map(Self::Cuda);
        gpus.ok_or_else(|| NotADevice(text.to_owned()))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu => f.write_str("gpu"),
            Self::Cuda(gpus) => {
                let numbers: Vec<String> = gpus.numbers().map(|n| n.to_string()).collect();
                write!(f, "cuda:{}", numbers.join(","))
            }
        }
    }
}

impl TryFrom<String> for Device {
    type Error = NotADevice;

    fn try_from(text: String) -> Result<Self, NotADevice> {
        text.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> String {
        device.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_one_name() {
        let name = |text: &str| text.parse::<Device>().map(|device| device.to_string());
        for (text, expected) in [
            ("cpu", "cpu"),
            ("gpu", "gpu"),
            ("mps", "gpu"),
            ("cuda", "cuda:0"),
            ("cuda:0", "cuda:0"),
            ("cuda:03", "cuda:3"),
            ("cuda:2,0,63", "cuda:0,2,63"),
        ] {
            assert_eq!(name(text).unwrap(), expected);
        }
        for text in [
            "", "gpu:0", "cuda:", "cuda:x", "cuda:+1", "cuda0", "CPU", "cuda:1,", "cuda:1,1",
            "cuda:64",
        ] {
            assert_eq!(name(text), Err(NotADevice(text.to_owned())));
        }
    }

    #[test]
    fn several_gpus_are_each_a_device() {
        let each = |text: &str| text.parse::<Device>().unwrap().each();
        assert_eq!(each("cpu"), [Device::Cpu]);
        let all = each("cuda:5,0");
        assert_eq!(
            all.iter().map(Device::to_string).collect::<Vec<_>>(),
            ["cuda:0", "cuda:5"]
        );
        assert_eq!(all[0], Device::CUDA);
    }
}
