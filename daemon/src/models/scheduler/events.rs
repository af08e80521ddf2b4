//! The events that drive the scheduler. Each ends in [`Scheduler::settle`].

use crate::ground::connection_id::ConnectionId;
use crate::ground::device::{Device, DeviceChoice};
use crate::models::lease::LeaseError;
use crate::models::load_failure::LoadFailure;
use crate::models::scheduler::device::Devices;
use crate::models::scheduler::ids::{InstanceId, WaiterId};
use crate::models::scheduler::instances::{Instance, InstanceState};
use crate::models::scheduler::model_state::ModelState;
use crate::models::scheduler::policy::{ModelPolicy, Policy};
use crate::models::scheduler::state::Scheduler;
use crate::models::scheduler::types::{LeaseUse, UnloadError, Want};
use crate::settings::Change;
use emberd_engine::Need;
use emberd_protocol::{LeaseId, ModelId, Verdict};
use std::sync::Arc;
use std::time::Instant;

impl Scheduler {
    /// A request asks for a model.
    pub fn ask(&mut self, model: &ModelId, want: Want, now: Instant) -> WaiterId {
        if want == Want::Preload
            && let Some(failed) = self.models.get_mut(model).and_then(|m| m.failed.as_mut())
        {
            // A preload usually comes after the cause was removed: it does not wait for its turn.
            failed.retry_now(now);
        }
        let id = WaiterId(self.next_id());
        self.waiters.insert(id, model, want);
        self.settle(now);
        id
    }

    /// A waiter has left. Its load goes on: other requests may wait for it, or arrive later.
    pub fn leave(&mut self, waiter: WaiterId, now: Instant) {
        self.waiters.remove(waiter);
        self.settle(now);
    }

    /// A request uses the model of a lease.
    ///
    /// # Errors
    /// [`LeaseError::NotHeld`].
    pub fn use_lease(
        &mut self,
        connection: ConnectionId,
        lease: LeaseId,
        now: Instant,
    ) -> Result<LeaseUse, LeaseError> {
        let model = self.leases.model_of(connection, lease)?.clone();
        self.leases.touch(&model, now);
        if let Some(id) = self.instances.bound_to(lease)
            && let Some(instance) = self.instances.get_mut(id)
            && instance.state == InstanceState::Ready
        {
            instance.uses += 1;
            return Ok(LeaseUse::Now(id));
        }
        Ok(LeaseUse::Wait(self.ask(&model, Want::UseOfLease(lease), now)))
    }

    /// A request no longer uses an instance.
    pub fn end_use(&mut self, id: InstanceId, now: Instant) {
        if let Some(instance) = self.instances.get_mut(id) {
            instance.uses = instance.uses.saturating_sub(1);
            instance.last_used = now;
            self.leases.touch(&instance.model, now);
            self.unload_if_done(id);
        }
        self.settle(now);
    }

    /// A lease ends.
    ///
    /// # Errors
    /// [`LeaseError::NotHeld`], also when called a second time.
    pub fn release(
        &mut self,
        connection: ConnectionId,
        lease: LeaseId,
        now: Instant,
    ) -> Result<(), LeaseError> {
        self.leases.release(connection, lease, now)?;
        self.unbind(lease, now);
        self.settle(now);
        Ok(())
    }

    /// All leases of a connection end. Returns their number.
    pub fn end_connection(&mut self, connection: ConnectionId, now: Instant) -> usize {
        let of_connection = self.leases.iter().filter(|(_, lease)| lease.connection == connection);
        let held: Vec<LeaseId> = of_connection.map(|(id, _)| id).collect();
        let count = self.leases.end_connection(connection, now);
        for lease in held {
            self.unbind(lease, now);
        }
        self.waiters.remove_connection(connection);
        self.settle(now);
        count
    }

    /// A model's files were found and its need is known, or the preparation failed.
    pub fn prepared(
        &mut self,
        model: &ModelId,
        result: Result<Need, Arc<LoadFailure>>,
        now: Instant,
    ) {
        if let Some(state) = self.models.get_mut(model) {
            state.is_preparing = false;
            match result {
                Ok(need) => state.need = Some(need),
                Err(cause) => self.load_failed(model, cause, now),
            }
        }
        self.settle(now);
    }

    /// An instance was loaded and takes this many bytes, or its load failed.
    pub fn loaded(&mut self, id: InstanceId, result: Result<u64, Arc<LoadFailure>>, now: Instant) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        let (model, device) = (instance.model.clone(), instance.device);
        match result {
            Ok(bytes) => {
                instance.state = InstanceState::Ready;
                instance.bytes = bytes;
                instance.last_used = now;
                if let Some(state) = self.models.get_mut(&model) {
                    state.load_succeeded();
                }
                self.grant_private(id, now);
            }
            Err(cause) => {
                self.forget(id);
                match self.models.get_mut(&model) {
                    // The GPU's figures promised room that it did not have: the CPU remains.
                    Some(state)
                        if cause.is_of_the_device()
                            && device != Device::Cpu
                            && state.choice(&self.policy) == DeviceChoice::Auto =>
                    {
                        state.avoid = Some(device);
                    }
                    _ => self.load_failed(&model, cause, now),
                }
            }
        }
        self.settle(now);
    }

    /// An instance was unloaded and its memory is free.
    pub fn unloaded(&mut self, id: InstanceId, now: Instant) {
        self.forget(id);
        self.settle(now);
    }

    /// The devices were asked again.
    pub fn set_devices(&mut self, devices: impl Into<Devices>, now: Instant) {
        self.devices = devices.into();
        self.settle(now);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        let policy = &self.policy;
        let is_due = |instance: &Instance| instance.unload_at(policy).is_some_and(|at| at <= now);
        let seconds = policy.unload_after.as_secs();
        for id in self.instances.ids_where(is_due) {
            self.start_unload(id, Verdict::Unload, format!("unused for {seconds} s"), now);
        }
        self.settle(now);
    }

    /// Unloads a model, at once or when its running work ends. Returns the instances that are
    /// leaving, including those that were leaving before.
    ///
    /// # Errors
    /// When it is held, being loaded, or not configured.
    pub fn unload(
        &mut self,
        model: &ModelId,
        now: Instant,
    ) -> Result<Vec<InstanceId>, UnloadError> {
        let Some(state) = self.models.get(model) else { return Err(UnloadError::NotConfigured) };
        if self.instances.of_model(model).any(|instance| instance.is_held(&self.policy)) {
            return Err(UnloadError::Held(self.leases.usage(model).leases));
        }
        let is_loading = |instance: &Instance| instance.state == InstanceState::Loading;
        if state.is_preparing || self.instances.of_model(model).any(is_loading) {
            return Err(UnloadError::Loading);
        }
        let is_ready = |instance: &Instance| {
            instance.model == *model && instance.state == InstanceState::Ready
        };
        for id in self.instances.ids_where(is_ready) {
            self.start_unload(id, Verdict::Unload, "an unload was requested".into(), now);
        }
        let leaving = self.instances.ids_where(|instance| instance.model == *model);
        self.settle(now);
        Ok(leaving)
    }

    /// Unloads all models that are neither held nor used. Returns their instances.
    pub fn cleanup(&mut self, now: Instant) -> Vec<InstanceId> {
        let idle = self.instances.ids_where(|instance| instance.is_idle(&self.policy));
        for id in &idle {
            let reason = "a cleanup of unused models was requested".into();
            self.start_unload(*id, Verdict::Unload, reason, now);
        }
        self.settle(now);
        idle
    }

    /// Replaces the rules. Models that are not listed stay as they are.
    pub fn reconfigure(
        &mut self,
        policy: Policy,
        models: impl IntoIterator<Item = (ModelId, ModelPolicy, Change)>,
        now: Instant,
    ) {
        self.policy = policy;
        for (id, policy, change) in models {
            let state = self.models.entry(id).or_insert_with(|| ModelState::new(policy));
            state.reconfigure(policy, change);
        }
        self.tick(now);
    }
}
