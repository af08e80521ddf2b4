//! The threads that prepare, load and unload models.

use crate::ground::device::Device;
use crate::ground::error_chain::chain;
use crate::ground::memory;
use crate::ground::sync::lock;
use crate::models::load_failure::LoadFailure;
use crate::models::load_target::LoadTarget;
use crate::models::loader::{FileSearch, Prepared};
use crate::models::registry::state::{Inner, Registry};
use crate::models::residence::ResidentModel;
use crate::models::scheduler::InstanceId;
use crate::models::slot::ModelSlot;
use emberd_protocol::{Event, ModelId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::Builder;
use std::time::Instant;

impl Registry {
    /// Finds a model's files on a thread.
    pub(super) fn start_preparing(self: &Arc<Self>, inner: &mut Inner, model: &ModelId) {
        let Some(slot) = inner.models.get(model).map(Arc::clone) else { return };
        let registry = Arc::clone(self);
        let work = move || {
            let result = catch_unwind(AssertUnwindSafe(|| registry.prepare(&slot, true)));
            let result = result.unwrap_or_else(|_| Err(Arc::new(LoadFailure::Panicked)));
            if let Err(cause) = &result {
                tracing::warn!(model = %slot.id, error = chain(&**cause), "cannot be loaded");
            }
            registry.refresh_devices();
            registry.change(|inner| {
                let need = result.map(|prepared| {
                    let need = prepared.need;
                    inner.prepared.insert(slot.id.clone(), prepared);
                    need
                });
                inner.scheduler.prepared(&slot.id, need, Instant::now());
            });
        };
        if let Err(cause) = Builder::new().name(format!("prepare:{model}")).spawn(work) {
            let cause = Arc::new(LoadFailure::Threads(cause));
            inner.scheduler.prepared(model, Err(cause), Instant::now());
            self.act_later();
        }
    }

    /// Finds a model's files, fetches them if need be and allowed, and computes its need.
    pub(super) fn prepare(
        self: &Arc<Self>,
        slot: &ModelSlot,
        may_fetch: bool,
    ) -> Result<Prepared, Arc<LoadFailure>> {
        let search = FileSearch {
            cpu_workers: self.cpu_workers,
            runtime: self.runtime.get(),
            may_fetch,
            progress: &|event: Event| self.inner().tell(&slot.id, &event),
        };
        self.loaders.prepare(slot.settings(), &search).map_err(Arc::new)
    }

    /// Loads an instance on a thread.
    pub(super) fn start_loading(
        self: &Arc<Self>,
        inner: &mut Inner,
        instance: InstanceId,
        model: &ModelId,
        device: Device,
        bytes: u64,
    ) {
        let Some(slot) = inner.models.get(model).map(Arc::clone) else { return };
        // The preparation that this load was decided on; another one may end in the meantime.
        let prepared = inner.prepared.get(model).cloned();
        let registry = Arc::clone(self);
        let work = move || {
            let load = || {
                let tensors =
                    registry.machine.tensors(device).ok_or(LoadFailure::NoDevice(device))?;
                let target = LoadTarget { device, tensors };
                let prepared = prepared.as_ref().ok_or(LoadFailure::NoSource)?;
                slot.load(&registry.loaders, prepared, &target, registry.cpu_workers)
            };
            let result = catch_unwind(AssertUnwindSafe(load));
            let result = result.unwrap_or_else(|_| Err(LoadFailure::Panicked));
            if let Err(cause) = &result {
                tracing::warn!(model = %slot.id, error = chain(cause), "load failed");
                memory::trim();
                registry.machine.trim_pool(device);
            }
            registry.refresh_devices();
            registry.change(|inner| {
                let result = result.map(|loaded| {
                    let bytes = bytes.max(loaded.info.weight_bytes);
                    inner.resident.insert(instance, ResidentModel::new(loaded));
                    bytes
                });
                inner.scheduler.loaded(instance, result.map_err(Arc::new), Instant::now());
            });
        };
        if let Err(cause) = Builder::new().name(format!("load:{model}")).spawn(work) {
            let cause = Arc::new(LoadFailure::Threads(cause));
            inner.scheduler.loaded(instance, Err(cause), Instant::now());
            self.act_later();
        }
    }

    /// Unloads an instance on a thread.
    pub(super) fn start_unloading(self: &Arc<Self>, inner: &mut Inner, instance: InstanceId) {
        let Some(resident) = inner.resident.remove(&instance) else {
            return self.unloaded_now(inner, instance);
        };
        let (model, device) = (resident.info.id.clone(), resident.device);
        let slot = inner.models.get(&model).map(Arc::clone);
        let registry = Arc::clone(self);
        // Shared with the thread, so that the model can be dropped here if no thread starts.
        let resident = Arc::new(Mutex::new(Some(resident)));
        let in_thread = Arc::clone(&resident);
        let work = move || {
            if let Some(resident) = lock(&in_thread).take() {
                resident.free();
            }
            memory::trim();
            registry.machine.trim_pool(device);
            if let Some(slot) = slot {
                slot.counters.unloads.fetch_add(1, Ordering::Relaxed);
                tracing::info!(model = %slot.id, "model unloaded");
            }
            registry.refresh_devices();
            registry.change(|inner| inner.scheduler.unloaded(instance, Instant::now()));
            registry.unloaded.send_modify(|count| *count += 1);
        };
        if Builder::new().name(format!("unload:{model}")).spawn(work).is_err() {
            // Its last user frees it.
            drop(lock(&resident).take());
            self.unloaded_now(inner, instance);
        }
    }

    /// Reports an unload that needed no thread.
    fn unloaded_now(self: &Arc<Self>, inner: &mut Inner, instance: InstanceId) {
        inner.scheduler.unloaded(instance, Instant::now());
        self.unloaded.send_modify(|count| *count += 1);
        self.act_later();
    }
}
