//! The registry at one moment, for the status.

use crate::models::lease::Lease;
use crate::models::registry::state::Registry;
use crate::models::residence::{ModelRef, ResidentModel};
use crate::models::scheduler::{Device, DeviceFigures, FailedLoad, Instance};
use emberd_protocol::{LeaseId, ModelId};
use std::time::Instant;

/// A model at one moment.
#[derive(Debug)]
pub(crate) struct ModelSnapshot {
    /// Its instances; those in memory with the model.
    pub(crate) instances: Vec<(Instance, Option<ModelRef>)>,
    /// Its last load, if that failed.
    pub(crate) failed: Option<FailedLoad>,
    /// Whether its files are being looked for.
    pub(crate) is_preparing: bool,
    /// The number of its leases.
    pub(crate) leases: usize,
    /// The last grant, use or release.
    pub(crate) last_used: Option<Instant>,
    /// When it is unloaded unless it is used before.
    pub(crate) unload_at: Option<Instant>,
}

/// All leases and devices at one moment.
#[derive(Debug)]
pub(crate) struct RegistrySnapshot {
    /// All leases.
    pub(crate) leases: Vec<(LeaseId, Lease)>,
    /// The devices, each with the bytes that our models take there.
    pub(crate) devices: Vec<(DeviceFigures, u64)>,
}

impl Registry {
    /// A model at this moment.
    #[must_use]
    pub(crate) fn model_snapshot(&self, model: &ModelId) -> ModelSnapshot {
        let inner = self.inner();
        let usage = inner.scheduler.leases().usage(model);
        let mut snapshot = ModelSnapshot {
            instances: Vec::new(),
            failed: inner.scheduler.failed(model).cloned(),
            is_preparing: inner.scheduler.is_preparing(model),
            leases: usage.leases,
            last_used: usage.last_used,
            unload_at: None,
        };
        for (id, instance) in inner.scheduler.instances().filter(|(_, i)| i.model == *model) {
            let resident = inner.resident.get(&id).map(ResidentModel::user);
            snapshot.unload_at = snapshot.unload_at.or(inner.scheduler.unload_at(instance));
            snapshot.instances.push((instance.clone(), resident));
        }
        snapshot
    }

    /// All leases and devices at this moment.
    #[must_use]
    pub(crate) fn snapshot(&self) -> RegistrySnapshot {
        let inner = self.inner();
        let leases = inner.scheduler.leases().iter().map(|(id, lease)| (id, lease.clone()));
        let used = |device: Device| {
            let here = inner.scheduler.instances().filter(|(_, i)| i.device == device);
            here.map(|(_, instance)| instance.bytes).sum()
        };
        let devices = inner.scheduler.devices().iter();
        RegistrySnapshot {
            leases: leases.collect(),
            devices: devices.map(|figures| (figures.clone(), used(figures.device))).collect(),
        }
    }
}
