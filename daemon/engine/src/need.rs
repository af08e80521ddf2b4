//! What a model takes in memory.

/// What a model takes in memory, by the kind of device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Need {
    /// On the CPU; 0 where it is not known.
    pub cpu_bytes: u64,
    /// On a GPU; `None` where it cannot compute there.
    pub gpu_bytes: Option<u64>,
}
