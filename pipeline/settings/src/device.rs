//! Where a stage computes: this machine's CPU, or one of its GPUs.
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
    /// The GPU of this number.
    Cuda(usize),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a device")]
pub struct NotADevice(String);

impl FromStr for Device {
    type Err = NotADevice;

    /// Reads `cpu`, `cuda` (the first GPU) or `cuda:N`.
    fn from_str(text: &str) -> Result<Self, NotADevice> {
        let number = match text {
            "cpu" => return Ok(Self::Cpu),
            "cuda" => "0",
            other => other.strip_prefix("cuda:").unwrap_or_default(),
        };
        let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse().ok().filter(|_| is_number);
        number
            .map(Self::Cuda)
            .ok_or_else(|| NotADevice(text.to_owned()))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
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
            ("cuda", "cuda:0"),
            ("cuda:0", "cuda:0"),
            ("cuda:03", "cuda:3"),
        ] {
            assert_eq!(name(text).unwrap(), expected);
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:+1", "cuda0", "CPU"] {
            assert_eq!(name(text), Err(NotADevice(text.to_owned())));
        }
    }
}
