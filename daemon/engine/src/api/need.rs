//! The memory that a model needs.

/// The memory that a model needs, by kind of device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Need {
    /// Bytes on the CPU; 0 if unknown.
    pub cpu_bytes: u64,
    /// Bytes on a GPU; `None` if the model cannot compute there.
    pub gpu_bytes: Option<u64>,
}
