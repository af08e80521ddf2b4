//! Devices by name: the CPU and the GPUs, and which of them a model may use.

use std::fmt;
use std::str::FromStr;

/// A device that computes models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Device {
    /// The CPU, with all its cores.
    Cpu,
    /// An NVIDIA GPU, by its number.
    Cuda(u32),
}

/// The devices that a model may use, as the settings name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DeviceChoice {
    /// A GPU that has room, otherwise the CPU.
    #[default]
    Auto,
    /// Any GPU, never the CPU.
    Gpu,
    /// This GPU only.
    Cuda(u32),
    /// The CPU only.
    Cpu,
}

impl DeviceChoice {
    /// Whether it allows any GPU.
    #[must_use]
    pub fn allows_gpus(self) -> bool {
        self != Self::Cpu
    }

    /// Whether it allows this device.
    #[must_use]
    pub fn allows(self, device: Device) -> bool {
        match (self, device) {
            (Self::Auto, _) | (Self::Gpu, Device::Cuda(_)) | (Self::Cpu, Device::Cpu) => true,
            (Self::Cuda(wanted), Device::Cuda(number)) => wanted == number,
            (Self::Gpu | Self::Cuda(_), Device::Cpu) | (Self::Cpu, Device::Cuda(_)) => false,
        }
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

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Gpu => f.write_str("gpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Cpu => f.write_str("cpu"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" => Ok(Self::Auto),
            "gpu" => Ok(Self::Gpu),
            "cpu" => Ok(Self::Cpu),
            _ => {
                let number = text.strip_prefix("cuda:").ok_or(())?;
                Ok(Self::Cuda(number.parse().map_err(drop)?))
            }
        }
    }
}
