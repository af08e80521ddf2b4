//! What the daemon needs to know of a GPU, and the rules for its memory.

use crate::models::scheduler::{Device, DeviceFigures};

use std::fmt;
use std::thread::sleep;
use std::time::Duration;

/// How often a GPU is asked whether memory that was given back is free, at most.
const LOOKS: u32 = 100;

/// Between two such looks.
const PAUSE: Duration = Duration::from_millis(10);

/// One GPU, opened.
pub trait Gpu: fmt::Debug + Send + Sync {
    /// What it is, for people.
    fn name(&self) -> &str;

    /// What its memory is used for now.
    ///
    /// # Errors
    /// When the driver fails.
    fn memory(&self) -> Result<GpuMemory, GpuError>;

    /// Waits for the work that runs, and gives memory back to the driver that no tensor uses, all
    /// but so many bytes of what this process has.
    ///
    /// # Errors
    /// When the driver fails.
    fn trim(&self, keep_bytes: u64) -> Result<(), GpuError>;

    /// Takes so many bytes for tensors to come, so that no other program gets them meanwhile.
    ///
    /// # Errors
    /// When they are not to be had.
    fn reserve(&self, bytes: u64) -> Result<(), GpuError>;

    /// Where tensors on it are made.
    fn tensors(&self) -> candle_core::Device;
}

/// A GPU's memory, as it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GpuMemory {
    /// All of it.
    pub total_bytes: u64,
    /// What nobody has.
    pub free_bytes: u64,
    /// What this process has for tensors, whether one uses it or not.
    pub own_bytes: u64,
}

/// What a driver said.
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

/// A GPU as placement sees it. What is neither free nor for our tensors is others': other programs',
/// and what the driver keeps for this one (its context, the code of kernels).
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

/// Gives memory back, all but so much, and waits until the device tells of it: for at most a second,
/// since another program may take it at once, and then it never does. Answers how much it was.
///
/// # Errors
/// When the driver fails.
pub fn give_back(gpu: &dyn Gpu, keep_bytes: u64) -> Result<u64, GpuError> {
    give_back_within(gpu, keep_bytes, LOOKS, || sleep(PAUSE))
}

pub(super) fn give_back_within(
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
