//! Devices as figures.

use crate::ground::device::Device;
use emberd_engine::Need;

/// The usable devices, and why others are not usable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Devices {
    /// The usable ones.
    pub figures: Vec<DeviceFigures>,
    /// Why other devices are not usable, or why there is no GPU.
    pub missing: Vec<String>,
}

/// A device's memory when it was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFigures {
    /// The device.
    pub device: Device,
    /// The product's name, for people.
    pub name: String,
    /// All of its memory, in bytes.
    pub total_bytes: u64,
    /// Memory that the device reports as free.
    pub free_bytes: u64,
    /// Memory that our models may take at most.
    pub budget_bytes: u64,
    /// Memory that other programs hold; 0 where they can give it back (the CPU's pages).
    pub others_bytes: u64,
}

impl DeviceFigures {
    /// Memory that all our models together may take now.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        self.budget_bytes.min(self.total_bytes.saturating_sub(self.others_bytes))
    }
}

impl From<Vec<DeviceFigures>> for Devices {
    fn from(figures: Vec<DeviceFigures>) -> Self {
        Self { figures, missing: Vec::new() }
    }
}

/// The memory that a model takes on a device; `None` if it cannot compute there.
#[must_use]
pub(super) fn need_on(device: Device, need: Need) -> Option<u64> {
    match device {
        Device::Cpu => Some(need.cpu_bytes),
        Device::Cuda(_) => need.gpu_bytes,
    }
}
