//! The device of a load, and how many tokens it computes together.

use crate::ground::device::Device;

/// Tokens of one batch on the CPU: enough rows for the matrix kernels to run at full rate, few
/// enough that activations stay in the caches and a single query after the batch does not wait long.
pub(super) const CPU_BATCH_TOKENS: usize = 512;

/// Tokens of one batch on a GPU: only thousands of rows keep its thousands of threads busy, and
/// each operation is launched again for each batch. The activations of one batch stay small
/// compared with the memory of a GPU.
pub(super) const GPU_BATCH_TOKENS: usize = 16 << 10;

/// The device of a load, by name and as the engine sees it.
#[derive(Debug, Clone)]
pub(super) struct LoadTarget {
    /// Its name in decisions and figures.
    pub(super) device: Device,
    /// The engine's handle, on which tensors are created.
    pub(super) tensors: candle_core::Device,
}
