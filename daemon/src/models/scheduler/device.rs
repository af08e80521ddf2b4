//! Devices as figures.

use emberd_engine::Need;
use std::fmt;
use std::str::FromStr;

/// Where a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Device {
    /// The processor.
    Cpu,
    /// A GPU of NVIDIA's, by its number.
    Cuda(u32),
}

impl Device {
    /// What a model of this need takes here; `None` where it cannot compute here.
    #[must_use]
    pub fn share_of(self, need: Need) -> Option<u64> {
        match self {
            Self::Cpu => Some(need.cpu_bytes),
            Self::Cuda(_) => need.gpu_bytes,
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

/// Where a model may compute, as settings say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DeviceChoice {
    /// On a GPU where there is room, else on the CPU.
    #[default]
    Auto,
    /// On a GPU, or not at all.
    Gpu,
    /// On this GPU, or not at all.
    Cuda(u32),
    /// On the CPU.
    Cpu,
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

impl DeviceChoice {
    /// Whether it allows any GPU.
    #[must_use]
    pub fn allows_gpus(self) -> bool {
        self != Self::Cpu
    }

    /// Whether a device is among those that it allows.
    #[must_use]
    pub fn allows(self, device: Device) -> bool {
        match (self, device) {
            (Self::Auto, _) | (Self::Gpu, Device::Cuda(_)) | (Self::Cpu, Device::Cpu) => true,
            (Self::Cuda(wanted), Device::Cuda(number)) => wanted == number,
            _ => false,
        }
    }
}

/// The devices, and what of GPUs cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Devices {
    /// Those that can be used.
    pub figures: Vec<DeviceFigures>,
    /// Why others cannot, or why there is no GPU.
    pub missing: Vec<String>,
}

impl From<Vec<DeviceFigures>> for Devices {
    fn from(figures: Vec<DeviceFigures>) -> Self {
        Self { figures, missing: Vec::new() }
    }
}

/// What a device has, as it was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFigures {
    /// Which.
    pub device: Device,
    /// What it is, for people.
    pub name: String,
    /// Its memory.
    pub total_bytes: u64,
    /// What of it nobody uses, as it reports.
    pub free_bytes: u64,
    /// What our models may take of it.
    pub budget_bytes: u64,
    /// What other programs take of it; 0 where it is theirs to give back (the CPU's pages).
    pub others_bytes: u64,
}

impl DeviceFigures {
    /// What our models can have now, all of them together.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        self.budget_bytes.min(self.total_bytes.saturating_sub(self.others_bytes))
    }
}
