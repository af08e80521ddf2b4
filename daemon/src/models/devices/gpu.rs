//! A GPU as the daemon sees it, and the rules for its memory.

use crate::ground::device::Device;
use crate::models::scheduler::DeviceFigures;
use std::fmt;
use std::thread::sleep;
use std::time::Duration;

/// How often a GPU is asked at most whether memory that was given back is free. The driver has no
/// signal for this.
const LOOKS: u32 = 100;

/// The pause between two such questions.
const PAUSE: Duration = Duration::from_millis(10);

/// One GPU, opened.
pub trait Gpu: fmt::Debug + Send + Sync {
    /// The product's name, for people.
    fn name(&self) -> &str;

    /// The present use of its memory.
    ///
    /// # Errors
    /// When the driver fails.
    fn memory(&self) -> Result<GpuMemory, GpuError>;

    /// Waits for the running work, then gives memory that no tensor uses back to the driver. The
    /// process keeps `keep_bytes`.
    ///
    /// # Errors
    /// When the driver fails.
    fn trim(&self, keep_bytes: u64) -> Result<(), GpuError>;

    /// Takes memory for later tensors, so that no other program gets it before.
    ///
    /// # Errors
    /// When the GPU has less.
    fn reserve(&self, bytes: u64) -> Result<(), GpuError>;

    /// The engine's handle, on which tensors are created.
    fn tensors(&self) -> candle_core::Device;
}

/// The GPUs that can be used, and why others cannot.
#[derive(Debug, Default)]
pub struct Found {
    /// Opened, by their numbers.
    pub gpus: Vec<(u32, Box<dyn Gpu>)>,
    /// Why other GPUs cannot be used, or why there is none.
    pub missing: Vec<String>,
}

/// A GPU's memory when it was last asked, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GpuMemory {
    /// All of it.
    pub total_bytes: u64,
    /// Memory that no process holds.
    pub free_bytes: u64,
    /// Memory that this process holds for tensors, used or not.
    pub own_bytes: u64,
}

/// The message of a driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GpuError(pub String);

/// A fraction of a device's memory.
#[expect(clippy::cast_precision_loss, reason = "a device has far less than 2^53 bytes")]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the total; a cast beyond that stays at the end of the range"
)]
pub(super) fn budget_bytes(total_bytes: u64, fraction: f64) -> u64 {
    ((total_bytes as f64 * fraction) as u64).min(total_bytes)
}

/// A GPU as placement sees it. Memory that is neither free nor held for our tensors belongs to other
/// programs, or to the driver for this one (its context, the code of kernels).
pub(super) fn figures(
    device: Device,
    name: &str,
    memory: GpuMemory,
    fraction: f64,
) -> DeviceFigures {
    let GpuMemory { total_bytes, free_bytes, own_bytes } = memory;
    DeviceFigures {
        device,
        name: name.to_owned(),
        total_bytes,
        free_bytes,
        budget_bytes: budget_bytes(total_bytes, fraction),
        others_bytes: total_bytes.saturating_sub(free_bytes).saturating_sub(own_bytes),
    }
}

/// Gives all memory but `keep_bytes` back to the driver, and waits until the GPU reports it as free:
/// for at most a second, since another program may take it at once. Returns the bytes given back.
///
/// # Errors
/// When the driver fails.
pub fn trim_pool(gpu: &dyn Gpu, keep_bytes: u64) -> Result<u64, GpuError> {
    trim_pool_within(gpu, keep_bytes, LOOKS, || sleep(PAUSE))
}

pub(super) fn trim_pool_within(
    gpu: &dyn Gpu,
    keep_bytes: u64,
    looks: u32,
    mut pause: impl FnMut(),
) -> Result<u64, GpuError> {
    let before = gpu.memory()?;
    gpu.trim(keep_bytes)?;
    let mut returned = 0;
    for _ in 0..looks {
        let now = gpu.memory()?;
        returned = before.own_bytes.saturating_sub(now.own_bytes);
        if now.free_bytes >= before.free_bytes.saturating_add(returned) {
            break;
        }
        pause();
    }
    Ok(returned)
}
