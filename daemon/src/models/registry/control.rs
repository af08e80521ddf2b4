//! Unloads, plans, other settings, and the passing of time.

use crate::models::acquire_error::AcquireError;
use crate::models::registry::policy::{model_policies, policy};
use crate::models::registry::state::{Inner, Registry};
use crate::models::scheduler::{InstanceId, UnloadError};
use crate::models::slot::ModelSlot;
use crate::settings::{Change, Settings};
use emberd_protocol::{Decision, Freed, ModelId};
use std::sync::Arc;
use std::thread::Builder;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// [`Registry::keep_time`] wakes up at least this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(24 * 60 * 60);

impl Registry {
    /// Unloads a model when its running work ends, and waits for that.
    ///
    /// # Errors
    /// When it is held or being loaded.
    pub(crate) async fn unload(self: &Arc<Self>, model: &ModelId) -> Result<Freed, UnloadError> {
        let leaving = self.change(|inner| {
            let instances = inner.scheduler.unload(model, Instant::now())?;
            Ok(inner.leaving(instances))
        })?;
        Ok(self.freed(leaving).await)
    }

    /// Unloads all models that are neither held nor used, and waits for that.
    pub(crate) async fn cleanup(self: &Arc<Self>) -> Freed {
        let leaving = self.change(|inner| {
            let instances = inner.scheduler.cleanup(Instant::now());
            inner.leaving(instances)
        });
        self.freed(leaving).await
    }

    /// The decisions about a model, the newest first.
    #[must_use]
    pub(crate) fn why(&self, model: &ModelId) -> Vec<Decision> {
        self.inner().scheduler.why(model, Instant::now())
    }

    /// What a load of a model would do now. Reads the headers of its weights.
    ///
    /// # Errors
    /// When its files cannot be found or used.
    pub(crate) async fn plan(
        self: &Arc<Self>,
        slot: &Arc<ModelSlot>,
    ) -> Result<Decision, AcquireError> {
        let (registry, slot, model) = (Arc::clone(self), Arc::clone(slot), slot.id.clone());
        let planned = tokio::task::spawn_blocking(move || {
            let prepared = registry.prepare(&slot, false)?;
            registry.refresh_devices();
            Ok(registry.inner().scheduler.plan(&slot.id, prepared.need))
        });
        match planned.await {
            Ok(Ok(Some(decision))) => Ok(decision),
            Ok(Ok(None)) | Err(_) => Err(AcquireError::Defect("a plan could not be made")),
            Ok(Err(source)) => Err(AcquireError::Load { model, source, retry_in: None }),
        }
    }

    /// Puts other settings into force: the rules, new models, and the settings of models that are
    /// not loaded.
    pub(crate) fn reconfigure(self: &Arc<Self>, settings: &Settings) {
        self.change(|inner| {
            let mut changes = Vec::new();
            for ((id, model), (_, rule)) in settings.models.iter().zip(model_policies(settings)) {
                let change = match inner.models.get(id) {
                    Some(slot) => {
                        let change = slot.settings().change_to(model);
                        slot.set_settings(model.clone());
                        change
                    }
                    None => {
                        let slot = ModelSlot::new(id.clone(), model.clone());
                        inner.models.insert(id.clone(), Arc::new(slot));
                        Change::Source
                    }
                };
                changes.push((id.clone(), rule, change));
            }
            inner.scheduler.reconfigure(policy(settings), changes, Instant::now());
        });
        if self.machine.reconfigure(settings) {
            // The GPUs must be looked for, which takes a while. If no thread can be started the
            // next load does it.
            let registry = Arc::clone(self);
            let _ = Builder::new().name("devices".into()).spawn(move || registry.refresh_devices());
        }
    }

    /// Whether a model is loaded or being loaded, so that new settings apply to its next load only.
    #[must_use]
    pub(crate) fn is_loading_or_loaded(&self, model: &ModelId) -> bool {
        let inner = self.inner();
        inner.scheduler.is_preparing(model)
            || inner.scheduler.instances().any(|(_, instance)| instance.model == *model)
    }

    /// Wakes the scheduler at its deadlines; the future never ends. Must be called within
    /// the runtime that the registry uses from then on, so before the first request.
    pub(crate) fn keep_time(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        // Not in the future, which may be polled after the first request. Only the first runtime is
        // kept.
        let _ = self.runtime.set(Handle::current());
        async move {
            loop {
                let wake = {
                    let mut inner = self.inner();
                    let latest = Instant::now() + LONGEST_SLEEP;
                    inner.wakes_at = inner.scheduler.next_deadline().unwrap_or(latest).min(latest);
                    inner.wakes_at
                };
                tokio::select! {
                    () = tokio::time::sleep_until(wake.into()) => {
                        self.change(|inner| inner.scheduler.tick(Instant::now()));
                    }
                    () = self.deadline_changed.notified() => {}
                }
            }
        }
    }

    /// Waits until instances were unloaded.
    async fn freed(&self, leaving: Leaving) -> Freed {
        let Leaving { instances, freed } = leaving;
        let mut unloaded = self.unloaded.subscribe();
        while self.inner().scheduler.instances().any(|(id, _)| instances.contains(&id)) {
            // The sender lives as long as `self`.
            if unloaded.changed().await.is_err() {
                break;
            }
        }
        freed
    }
}

impl Inner {
    /// Instances that are leaving, with the memory that they free. To be called before the lock is
    /// released: the first of them may have left a moment later.
    fn leaving(&self, instances: Vec<InstanceId>) -> Leaving {
        let mut freed = Freed::default();
        for (_, instance) in self.scheduler.instances().filter(|(id, _)| instances.contains(id)) {
            freed.bytes += instance.bytes;
            if !freed.models.contains(&instance.model) {
                freed.models.push(instance.model.clone());
            }
        }
        Leaving { instances, freed }
    }
}

/// Instances that are leaving.
struct Leaving {
    instances: Vec<InstanceId>,
    freed: Freed,
}
