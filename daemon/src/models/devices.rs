//! What there is to compute on, and how much of it is free.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod gpu;
#[cfg(test)]
pub(crate) mod tests;

use crate::ground::headroom::Headroom;
pub use crate::models::devices::gpu::{Gpu, GpuError, GpuMemory, give_back};
use crate::models::devices::gpu::{budget_bytes, figures};
use crate::models::scheduler::{Device, DeviceFigures, Devices};

use crate::settings::Settings;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The processor and the GPUs, with what models may take of them.
///
/// GPUs are looked for when a model may first be on one, and then kept: a context on a GPU takes some
/// hundred megabytes of it, which a daemon for the CPU alone must not cost.
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

/// The GPUs that can be used, and why others cannot.
#[derive(Debug, Default)]
pub struct Found {
    /// Opened, by their numbers.
    pub gpus: Vec<(u32, Box<dyn Gpu>)>,
    /// Why others cannot be used, or why there is none.
    pub missing: Vec<String>,
}

impl Machine {
    /// The devices of this machine, for a daemon with these settings.
    #[must_use]
    pub(crate) fn new(settings: &Settings) -> Self {
        Self::with(settings, find)
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

    /// From now on models may be on a GPU, or not. Answers whether GPUs are to be looked for.
    pub(crate) fn reconfigure(&self, settings: &Settings) -> bool {
        self.wants_gpus.store(settings.wants_gpus(), Ordering::Relaxed);
        settings.wants_gpus() && self.gpus.get().is_none()
    }

    /// What the devices tell now. A GPU answers slowly, and the first time it is looked for.
    #[must_use]
    pub(crate) fn ask(&self) -> Devices {
        let mut devices = Devices::from(vec![processor()]);
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

    /// Where the tensors of a model on this device are. `None`: there is no such GPU.
    #[must_use]
    pub(crate) fn tensors(&self, device: Device) -> Option<candle_core::Device> {
        match device {
            Device::Cpu => Some(candle_core::Device::Cpu),
            Device::Cuda(_) => self.gpu(device).map(Gpu::tensors),
        }
    }

    /// Gives memory that models have freed back to the driver, or to the share that is reserved, and
    /// waits (not for long) until the device tells of it. On the CPU others see to that.
    pub(crate) fn give_back(&self, device: Device) {
        let Some(gpu) = self.gpu(device) else { return };
        match give_back(gpu, self.kept_bytes(gpu)) {
            Ok(bytes) => tracing::debug!(%device, bytes, "memory was given back"),
            Err(error) => tracing::warn!(%device, %error, "memory was perhaps not given back"),
        }
    }

    fn gpu(&self, device: Device) -> Option<&dyn Gpu> {
        let mut gpus = self.gpus.get()?.gpus.iter();
        gpus.find(|(number, _)| Device::Cuda(*number) == device).map(|(_, gpu)| &**gpu)
    }

    /// What the daemon holds of a GPU even where no model needs it.
    fn kept_bytes(&self, gpu: &dyn Gpu) -> u64 {
        match gpu.memory() {
            Ok(memory) if !self.may_grow => budget_bytes(memory.total_bytes, self.fraction),
            _ => 0,
        }
    }

    fn look(&self) -> Found {
        let found = (self.find)();
        for reason in &found.missing {
            // Most machines have none; a model that needs one is told.
            tracing::info!(reason, "no GPU is used");
        }
        for (number, gpu) in &found.gpus {
            let (device, bytes) = (Device::Cuda(*number), self.kept_bytes(&**gpu));
            tracing::info!(%device, name = gpu.name(), "a GPU was found");
            if bytes == 0 {
                continue;
            }
            match gpu.reserve(bytes) {
                Ok(()) => tracing::info!(%device, bytes, "the share of models is reserved"),
                // Others have it. What they leave can still be used, as where it may grow.
                Err(error) => {
                    tracing::warn!(%device, bytes, %error, "the share of models is not to be had");
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

/// Opens all GPUs that the driver shows, as the daemon does: none, in a program without them.
#[cfg(not(feature = "cuda"))]
#[must_use]
pub fn find() -> Found {
    let reason = "this program was built without GPUs (feature \"cuda\")";
    Found { gpus: Vec::new(), missing: vec![reason.into()] }
}

/// The processor: what the system, and the control groups of this process, can spare is the models'.
fn processor() -> DeviceFigures {
    let Headroom { total_bytes, free_bytes } = Headroom::now();
    DeviceFigures {
        device: Device::Cpu,
        name: processor_name(),
        total_bytes,
        free_bytes,
        budget_bytes: total_bytes,
        others_bytes: 0,
    }
}

fn processor_name() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name"));
    let name = name.and_then(|rest| rest.split_once(':')).map(|(_, name)| name.trim().to_owned());
    name.unwrap_or_else(|| std::env::consts::ARCH.into())
}
