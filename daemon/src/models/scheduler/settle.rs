//! The pass that follows each event: what can be done now for each waiter.

use crate::ground::device::Device;
use crate::ground::error_chain::chain;
use crate::models::lease::LeaseError;
use crate::models::load_failure::LoadFailure;
use crate::models::scheduler::explain;
use crate::models::scheduler::ids::{InstanceId, WaiterId};
use crate::models::scheduler::instances::{Instance, InstanceState};
use crate::models::scheduler::placement::{
    Placement, PlacementRequest, PlacementVerdict, place, refuse_unseen,
};
use crate::models::scheduler::state::Scheduler;
use crate::models::scheduler::types::{Action, Granted, WaitError, Want};
use emberd_engine::Need;
use emberd_protocol::{Decision, LeaseId, ModelId, Verdict};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

impl Scheduler {
    /// Does for each waiter, in the order of arrival, what can be done now.
    pub(super) fn settle(&mut self, now: Instant) {
        let mut reserved = ReservedRoom::default();
        for waiter in self.waiters.ids() {
            self.step(waiter, &mut reserved, now);
        }
        // Last, so that a waiter for one of these gets it first.
        for id in self.instances.surplus(&self.policy) {
            let reason = "more models are loaded than sharing.max_shared_models allows".into();
            self.start_unload(id, Verdict::Unload, reason, now);
        }
    }

    /// Unloads an instance: now, or when its running work ends.
    pub(super) fn start_unload(
        &mut self,
        id: InstanceId,
        verdict: Verdict,
        reason: String,
        now: Instant,
    ) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        self.journal.note(explain::of_instance(instance, verdict, reason), now);
        if instance.uses > 0 {
            instance.state = InstanceState::Draining;
        } else {
            instance.state = InstanceState::Unloading;
            self.actions.push(Action::Unload { instance: id });
        }
    }

    /// Grants a private instance to its waiter, or unloads it if the waiter has left.
    pub(super) fn grant_private(&mut self, id: InstanceId, now: Instant) {
        let Some(waiter) = self.instances.get(id).and_then(|instance| instance.waiter) else {
            return;
        };
        if self.waiters.contains(waiter) {
            self.grant(waiter, id, now);
        } else {
            self.unload_if_done(id);
        }
    }

    /// Unloads an instance without work, if it is draining or its only holder has left.
    pub(super) fn unload_if_done(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        let is_awaited = instance.waiter.is_some_and(|waiter| self.waiters.contains(waiter));
        let is_done = match instance.state {
            InstanceState::Draining => true,
            InstanceState::Ready => !instance.is_shared && instance.leases == 0 && !is_awaited,
            InstanceState::Loading | InstanceState::Unloading => false,
        };
        if is_done && instance.uses == 0 {
            instance.state = InstanceState::Unloading;
            self.actions.push(Action::Unload { instance: id });
        }
    }

    /// Ends the binding of a lease.
    pub(super) fn unbind(&mut self, lease: LeaseId, now: Instant) {
        if let Some(id) = self.instances.unbind(lease, now) {
            self.unload_if_done(id);
        }
    }

    /// Removes an instance that is no longer in memory.
    pub(super) fn forget(&mut self, id: InstanceId) {
        if let Some(last) = self.instances.remove(id)
            && let Some(state) = self.models.get_mut(&last.model)
        {
            // Its files may have changed by the next load.
            state.need = None;
        }
    }

    /// Notes a failed preparation or load.
    pub(super) fn load_failed(&mut self, model: &ModelId, cause: Arc<LoadFailure>, now: Instant) {
        let Some(state) = self.models.get_mut(model) else { return };
        self.journal.note(explain::decision(model, Verdict::Fail, chain(&*cause)), now);
        state.load_failed(cause, now);
    }

    fn step(&mut self, waiter: WaiterId, reserved: &mut ReservedRoom, now: Instant) {
        let Some((model, want)) = self.waiters.get(waiter).map(|w| (w.model.clone(), w.want))
        else {
            return;
        };
        let Some(state) = self.models.get(&model) else {
            return self.refuse(waiter, WaitError::NotConfigured);
        };
        if let Some(failed) = &state.failed
            && let Some(retry_in) = failed.retry_in(now)
        {
            let cause = Arc::clone(&failed.cause);
            return self.refuse(waiter, WaitError::Failed { cause, retry_in });
        }
        let (is_shared, choice) = (state.is_shared(&self.policy), state.choice(&self.policy));
        if !is_shared && want == Want::Preload {
            return self.refuse(waiter, WaitError::NotShared);
        }
        let serves = |instance: &Instance| {
            instance.model == model
                && if is_shared { instance.is_shared } else { instance.waiter == Some(waiter) }
        };
        let serving = self.instances.iter().find(|(_, instance)| serves(instance));
        if let Some((id, state)) = serving.map(|(id, instance)| (id, instance.state)) {
            // One that is loading is granted later; one that is leaving must have left first.
            if state == InstanceState::Ready {
                self.grant(waiter, id, now);
            }
            return self.waiters.note_wait(waiter);
        }
        self.waiters.note_wait(waiter);
        if let Some(placement) = refuse_unseen(choice, &self.devices) {
            let decision =
                explain::of_placement(&model, Need::default(), &placement, &self.instances);
            self.journal.note(Decision { need_bytes: 0, ..decision }, now);
            let Placement { verdict, reasons, .. } = placement;
            return self.refuse(waiter, WaitError::Refused { verdict, reasons });
        }
        let Some(state) = self.models.get_mut(&model) else { return };
        let Some(need) = state.need else {
            if !std::mem::replace(&mut state.is_preparing, true) {
                self.actions.push(Action::Prepare { model });
            }
            return;
        };
        if is_shared && reserved.count {
            return; // an earlier waiter waits for the same room
        }
        let request = PlacementRequest { need, choice, is_shared, avoid: state.avoid };
        self.place(waiter, model, &request, reserved, now);
    }

    /// Finds a device for a waiter's model, and starts what that takes.
    fn place(
        &mut self,
        waiter: WaiterId,
        model: ModelId,
        request: &PlacementRequest,
        reserved: &mut ReservedRoom,
        now: Instant,
    ) {
        let (is_shared, need) = (request.is_shared, request.need);
        let residents = self.instances.residents(&self.policy);
        let placement = place(request, &self.policy, &self.devices, &residents);
        if placement.device.is_some_and(|device| reserved.devices.contains(&device)) {
            return;
        }
        let decision = explain::of_placement(&model, need, &placement, &self.instances);
        self.journal.note(decision, now);
        let Placement { verdict, device, reasons } = placement;
        match (verdict, device) {
            (PlacementVerdict::Load { bytes }, Some(device)) => {
                let waiter = (!is_shared).then_some(waiter);
                self.start_load(model, device, bytes, waiter, now);
            }
            (PlacementVerdict::Wait, device) => {
                reserved.reserve(device, is_shared);
                self.announce_wait_for_room(waiter);
            }
            (PlacementVerdict::MakeRoom(evicted), device) => {
                reserved.reserve(device, is_shared);
                for id in evicted {
                    let reason = format!("to make room for \"{model}\"");
                    self.start_unload(id, Verdict::Evict, reason, now);
                }
                self.announce_wait_for_room(waiter);
            }
            (verdict, _) => self.refuse(waiter, WaitError::Refused { verdict, reasons }),
        }
    }

    /// Loads an instance, for one waiter if it is private.
    fn start_load(
        &mut self,
        model: ModelId,
        device: Device,
        bytes: u64,
        waiter: Option<WaiterId>,
        now: Instant,
    ) {
        let id = InstanceId(self.next_id());
        let instance = Instance {
            model: model.clone(),
            device,
            bytes,
            state: InstanceState::Loading,
            is_shared: waiter.is_none(),
            uses: 0,
            leases: 0,
            last_used: now,
            waiter,
        };
        self.instances.insert(id, instance);
        if let Some(state) = self.models.get_mut(&model) {
            state.load_started();
        }
        self.actions.push(Action::Load { instance: id, model, device, bytes });
    }

    fn grant(&mut self, waiter: WaiterId, id: InstanceId, now: Instant) {
        let Some(waits) = self.waiters.remove(waiter) else { return };
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.waiter = None;
        let granted = match waits.want {
            Want::Lease(connection) => {
                let limit = self.policy.max_leases;
                self.leases.grant(connection, &waits.model, limit, now).map(|lease| {
                    self.instances.bind(lease, id);
                    Granted::Lease(lease, id)
                })
            }
            Want::Use => {
                instance.uses += 1;
                Ok(Granted::Use(id))
            }
            Want::UseOfLease(lease) if self.leases.is_alive(lease) => {
                instance.uses += 1;
                self.instances.bind(lease, id);
                Ok(Granted::Use(id))
            }
            Want::UseOfLease(lease) => Err(LeaseError::NotHeld(lease)),
            Want::Preload => {
                instance.last_used = now;
                Ok(Granted::Preloaded { instance: id, was_loaded: !waits.has_waited })
            }
        };
        self.leases.touch(&waits.model, now);
        self.actions.push(match granted {
            Ok(granted) => Action::Grant { waiter, granted },
            Err(error) => Action::Fail { waiter, error: error.into() },
        });
        self.unload_if_done(id);
    }

    fn refuse(&mut self, waiter: WaiterId, error: WaitError) {
        self.waiters.remove(waiter);
        self.actions.push(Action::Fail { waiter, error });
    }

    fn announce_wait_for_room(&mut self, waiter: WaiterId) {
        if self.waiters.mark_waiting_for_room(waiter) {
            self.actions.push(Action::WaitingForRoom { waiter });
        }
    }
}

/// Room that earlier waiters wait for.
#[derive(Debug, Default)]
struct ReservedRoom {
    /// One of `sharing.max_shared_models`.
    count: bool,
    devices: BTreeSet<Device>,
}

impl ReservedRoom {
    fn reserve(&mut self, device: Option<Device>, is_shared: bool) {
        self.devices.extend(device);
        self.count |= is_shared;
    }
}
