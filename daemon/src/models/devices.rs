//! The devices of this machine, and how much of their memory is free.

#[cfg(feature = "cuda")]
mod cuda;
mod gpu;
#[cfg(test)]
mod tests;

use crate::ground::device::Device;
use crate::ground::headroom::Headroom;
use crate::models::devices::gpu::{budget_bytes, figures};
use crate::models::scheduler::{DeviceFigures, Devices};
use crate::settings::Settings;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

pub use crate::models::devices::gpu::{Found, Gpu, GpuError, GpuMemory, trim_pool};

/// The CPU and the GPUs.
///
/// GPUs are looked for when a model may first use one, and then kept: a context takes some hundred
/// megabytes of a GPU, which a daemon for the CPU alone must not cost.
#[derive(Debug)]
pub(crate) struct Machine {
    /// `gpu_memory_fraction`.
    fraction: f64,
    /// `allow_gpu_growth`.
    may_grow: bool,
    wants_gpus: AtomicBool,
    find: fn() -> Found,
    gpus: OnceLock<Found>,
}

impl Machine {
    /// The devices of this machine, for a daemon with these settings.
    #[must_use]
    pub(crate) fn new(settings: &Settings) -> Self {
        Self::with(settings, find)
    }

    /// Applies other settings. Returns whether GPUs must be looked for.
    pub(crate) fn reconfigure(&self, settings: &Settings) -> bool {
        self.wants_gpus.store(settings.wants_gpus(), Ordering::Relaxed);
        settings.wants_gpus() && self.gpus.get().is_none()
    }

    /// Asks the devices for their figures. A GPU answers slowly; the first time it is looked for.
    #[must_use]
    pub(crate) fn ask(&self) -> Devices {
        let mut devices = Devices::from(vec![cpu_figures()]);
        if !self.wants_gpus.load(Ordering::Relaxed) && self.gpus.get().is_none() {
            return devices;
        }
        let found = self.gpus.get_or_init(|| self.look());
        devices.missing.clone_from(&found.missing);
        for (number, gpu) in &found.gpus {
            let device = Device::Cuda(*number);
            match gpu.memory() {
                Ok(memory) => {
                    devices.figures.push(figures(device, gpu.name(), memory, self.fraction));
                }
                Err(error) => {
                    tracing::error!(%device, %error, "a GPU does not answer and is not used");
                    devices.missing.push(format!("{device} does not answer: {error}"));
                }
            }
        }
        devices
    }

    /// The engine's handle of a device; `None` if there is no such GPU.
    #[must_use]
    pub(crate) fn tensors(&self, device: Device) -> Option<candle_core::Device> {
        match device {
            Device::Cpu => Some(candle_core::Device::Cpu),
            Device::Cuda(_) => self.gpu(device).map(Gpu::tensors),
        }
    }

    /// Gives memory that models have freed back to the driver, or to the reserved share, and waits a
    /// moment until the GPU reports it. The CPU's memory is given back elsewhere.
    pub(crate) fn trim_pool(&self, device: Device) {
        let Some(gpu) = self.gpu(device) else { return };
        match trim_pool(gpu, self.kept_bytes(gpu)) {
            Ok(bytes) => tracing::debug!(%device, bytes, "memory was given back"),
            Err(error) => tracing::warn!(%device, %error, "memory may not have been given back"),
        }
    }

    fn with(settings: &Settings, find: fn() -> Found) -> Self {
        Self {
            fraction: settings.gpu_memory_fraction,
            may_grow: settings.allow_gpu_growth,
            wants_gpus: AtomicBool::new(settings.wants_gpus()),
            find,
            gpus: OnceLock::new(),
        }
    }

    fn gpu(&self, device: Device) -> Option<&dyn Gpu> {
        let mut gpus = self.gpus.get()?.gpus.iter();
        gpus.find(|(number, _)| Device::Cuda(*number) == device).map(|(_, gpu)| &**gpu)
    }

    /// The memory of a GPU that the daemon keeps even if no model needs it.
    fn kept_bytes(&self, gpu: &dyn Gpu) -> u64 {
        match gpu.memory() {
            Ok(memory) if !self.may_grow => budget_bytes(memory.total_bytes, self.fraction),
            _ => 0,
        }
    }

    fn look(&self) -> Found {
        let found = (self.find)();
        for reason in &found.missing {
            // Most machines have none; a model that needs one fails with this reason.
            tracing::info!(reason, "no GPU is used");
        }
        for (number, gpu) in &found.gpus {
            let (device, bytes) = (Device::Cuda(*number), self.kept_bytes(&**gpu));
            tracing::info!(%device, name = gpu.name(), "a GPU was found");
            if bytes == 0 {
                continue;
            }
            match gpu.reserve(bytes) {
                Ok(()) => {
                    tracing::info!(%device, bytes, "the models' share of GPU memory is reserved");
                }
                // Others hold it. The rest can still be used, as with allow_gpu_growth.
                Err(error) => {
                    tracing::warn!(%device, bytes, %error, "cannot reserve the models' share of GPU memory");
                }
            }
        }
        found
    }
}

/// Opens all GPUs that the driver shows, as the daemon does.
#[cfg(feature = "cuda")]
#[must_use]
pub fn find() -> Found {
    cuda::find()
}

/// Opens all GPUs that the driver shows, as the daemon does: none, in a program without GPU support.
#[cfg(not(feature = "cuda"))]
#[must_use]
pub fn find() -> Found {
    let reason = "this program was built without GPU support (feature \"cuda\")";
    Found { gpus: Vec::new(), missing: vec![reason.into()] }
}

/// The CPU: models may take all memory that the system and this process's control groups allow.
fn cpu_figures() -> DeviceFigures {
    let Headroom { total_bytes, free_bytes } = Headroom::now();
    DeviceFigures {
        device: Device::Cpu,
        name: cpu_name(),
        total_bytes,
        free_bytes,
        budget_bytes: total_bytes,
        others_bytes: 0,
    }
}

fn cpu_name() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name"));
    let name = name.and_then(|rest| rest.split_once(':')).map(|(_, name)| name.trim().to_owned());
    name.unwrap_or_else(|| std::env::consts::ARCH.into())
}
