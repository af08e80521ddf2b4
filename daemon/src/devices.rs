//! What there is to compute on, and how much of it is free.

use crate::scheduler::{Device, DeviceFigures};
use crate::settings::Settings;

/// The devices of this machine with what models may take of them, for a daemon with these settings.
#[must_use]
pub(crate) fn figures(settings: &Settings, _gpus: &[u32]) -> Vec<DeviceFigures> {
    let (total_bytes, free_bytes) = system_memory();
    let _ = settings.gpu_memory_fraction;
    vec![DeviceFigures {
        device: Device::Cpu,
        name: processor(),
        total_bytes,
        free_bytes,
        budget_bytes: total_bytes,
        others_bytes: 0,
    }]
}

/// The same devices, asked again.
#[must_use]
pub(crate) fn refresh(mut devices: Vec<DeviceFigures>) -> Vec<DeviceFigures> {
    for figures in &mut devices {
        if figures.device == Device::Cpu {
            figures.free_bytes = system_memory().1;
        }
    }
    devices
}

/// Memory of the machine and what of it could be had now. Without limits where nobody tells: then
/// the system refuses by itself what it does not have.
fn system_memory() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    };
    let total = of("MemTotal:").unwrap_or(u64::MAX);
    (total, of("MemAvailable:").unwrap_or(total))
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name"));
    let name = name.and_then(|rest| rest.split_once(':')).map(|(_, name)| name.trim().to_owned());
    name.unwrap_or_else(|| std::env::consts::ARCH.into())
}
