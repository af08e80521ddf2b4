//! The models in memory, and the leases that are bound to them.

use crate::ground::device::Device;
use crate::models::scheduler::ids::{InstanceId, WaiterId};
use crate::models::scheduler::placement::{Residency, Resident};
use crate::models::scheduler::policy::Policy;
use emberd_protocol::{LeaseId, ModelId};
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// One model in memory.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its model.
    pub model: ModelId,
    /// Its device.
    pub device: Device,
    /// The memory that it takes there.
    pub bytes: u64,
    /// Its state.
    pub state: InstanceState,
    /// Whether everybody shares it; otherwise it belongs to one holder.
    pub is_shared: bool,
    /// Requests that use it now.
    pub uses: usize,
    /// Leases that are bound to it.
    pub leases: usize,
    /// The last release of a lease or end of a request.
    pub last_used: Instant,
    /// The waiter that a private instance is loaded for.
    pub(super) waiter: Option<WaiterId>,
}

/// The state of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceState {
    /// It is being loaded.
    Loading,
    /// It is in memory.
    Ready,
    /// It accepts no new work and is unloaded when its running work ends.
    Draining,
    /// It is being unloaded.
    Unloading,
}

/// All instances.
#[derive(Debug, Default)]
pub(super) struct Instances {
    by_id: BTreeMap<InstanceId, Instance>,
    /// The instance of each lease.
    bindings: HashMap<LeaseId, InstanceId>,
}

impl Instance {
    /// Whether leases keep it in memory.
    pub(super) fn is_held(&self, policy: &Policy) -> bool {
        self.leases > 0 && (policy.reference_counting || !self.is_shared)
    }

    /// Whether it is in memory and neither held nor used.
    pub(super) fn is_idle(&self, policy: &Policy) -> bool {
        self.state == InstanceState::Ready && self.uses == 0 && !self.is_held(policy)
    }

    /// When it is unloaded unless it is used before.
    pub(super) fn unload_at(&self, policy: &Policy) -> Option<Instant> {
        if !self.is_shared || !self.is_idle(policy) {
            return None;
        }
        self.last_used.checked_add(policy.unload_after)
    }

    fn is_leaving(&self) -> bool {
        matches!(self.state, InstanceState::Draining | InstanceState::Unloading)
    }

    fn residency(&self, policy: &Policy) -> Residency {
        match self.state {
            InstanceState::Loading => Residency::Loading,
            InstanceState::Draining | InstanceState::Unloading => Residency::Leaving,
            InstanceState::Ready if self.is_held(policy) || self.waiter.is_some() => {
                Residency::Held
            }
            InstanceState::Ready if self.uses > 0 && self.is_shared => {
                Residency::Busy(self.last_used)
            }
            InstanceState::Ready if self.uses > 0 => Residency::Leaving,
            InstanceState::Ready => Residency::Idle(self.last_used),
        }
    }
}

impl Instances {
    pub(super) fn insert(&mut self, id: InstanceId, instance: Instance) {
        self.by_id.insert(id, instance);
    }

    pub(super) fn get(&self, id: InstanceId) -> Option<&Instance> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: InstanceId) -> Option<&mut Instance> {
        self.by_id.get_mut(&id)
    }

    /// All of them, ordered by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (InstanceId, &Instance)> {
        self.by_id.iter().map(|(id, instance)| (*id, instance))
    }

    /// All instances of a model.
    pub(super) fn of_model(&self, model: &ModelId) -> impl Iterator<Item = &Instance> {
        self.by_id.values().filter(move |instance| instance.model == *model)
    }

    /// The ids of those that fulfil a condition.
    pub(super) fn ids_where(&self, is_wanted: impl Fn(&Instance) -> bool) -> Vec<InstanceId> {
        self.iter().filter(|(_, instance)| is_wanted(instance)).map(|(id, _)| id).collect()
    }

    /// Removes an instance and its bindings. Returns it if it was its model's last one.
    pub(super) fn remove(&mut self, id: InstanceId) -> Option<Instance> {
        let removed = self.by_id.remove(&id)?;
        self.bindings.retain(|_, bound| *bound != id);
        let is_last = self.of_model(&removed.model).next().is_none();
        is_last.then_some(removed)
    }

    /// The instance of a lease.
    pub(super) fn bound_to(&self, lease: LeaseId) -> Option<InstanceId> {
        self.bindings.get(&lease).copied()
    }

    /// Binds a lease to an instance. Several requests of one lease may bring its model back at
    /// once: the lease counts once.
    pub(super) fn bind(&mut self, lease: LeaseId, id: InstanceId) {
        let before = self.bindings.insert(lease, id);
        if before == Some(id) {
            return;
        }
        if let Some(before) = before.and_then(|before| self.by_id.get_mut(&before)) {
            before.leases = before.leases.saturating_sub(1);
        }
        if let Some(instance) = self.by_id.get_mut(&id) {
            instance.leases += 1;
        }
    }

    /// Ends the binding of a lease; returns the instance that it was bound to.
    pub(super) fn unbind(&mut self, lease: LeaseId, now: Instant) -> Option<InstanceId> {
        let id = self.bindings.remove(&lease)?;
        let instance = self.by_id.get_mut(&id)?;
        instance.leases = instance.leases.saturating_sub(1);
        instance.last_used = now;
        Some(id)
    }

    /// The idle shared instances beyond the number that may be loaded, least recently used first.
    pub(super) fn surplus(&self, policy: &Policy) -> Vec<InstanceId> {
        let stays = |instance: &&Instance| instance.is_shared && !instance.is_leaving();
        let count = self.by_id.values().filter(stays).count();
        let mut idle = self.ids_where(|instance| instance.is_shared && instance.is_idle(policy));
        idle.sort_by_key(|id| self.get(*id).map(|instance| instance.last_used));
        idle.truncate(count.saturating_sub(policy.max_shared_models));
        idle
    }

    /// All of them, as placement sees them.
    pub(super) fn residents(&self, policy: &Policy) -> Vec<Resident> {
        let resident = |(id, instance): (InstanceId, &Instance)| Resident {
            instance: id,
            model: instance.model.clone(),
            device: instance.device,
            bytes: instance.bytes,
            is_shared: instance.is_shared,
            residency: instance.residency(policy),
        };
        self.iter().map(resident).collect()
    }
}
