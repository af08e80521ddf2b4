//! Which models are in memory, where, and for whom. Pure: no clock, no thread, no I/O of its own.
//!
//! ```text
//!              asked for             there is room            loaded
//! Configured ────────────▶ prepared ──────────────▶ Loading ──────────▶ Ready ⇄ Idle
//!     ▲  ▲                                             │                  │       │ idle too long,
//!     │  └──────────────── Failed, until a time ◀──────┘ failed           │       │ evicted, told to
//!     │                                                          told to  ▼       ▼
//!     └──────────────────────────────────────────────── Unloading ◀─── Draining ──┘
//! ```
//! Whoever wants a model becomes a waiter. Each event ends in `settle`, which asks for
//! every waiter, in the order of their arrival, what can be done for it now. So no wake-up can be
//! lost or meant for another: what was decided before is never relied on, and a model that is on its
//! way out (a state of its own, not a timeout set to nothing) takes nobody in.
//!
//! A waiter that waits for room keeps those behind it from taking that room.

pub(crate) mod device;
pub(crate) mod journal;
pub(crate) mod placement;
#[cfg(test)]
pub(crate) mod random;
#[cfg(test)]
pub(crate) mod tests;

pub use crate::models::scheduler::device::{Device, DeviceChoice, DeviceFigures, Devices};
use emberd_engine::Need;

pub use crate::models::scheduler::placement::{
    Placement, PlacementVerdict, Resident, Standing, Wish, place,
};

use crate::models::lease::{ConnectionId, LeaseError, LeaseTable};
use crate::models::loader::LoadFailure;
use crate::models::scheduler::journal::{Journal, decision};
use emberd_protocol::{Decision, LeaseId, ModelId, Reason, Verdict};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After a failed load, requests are told of it for this long before one tries again; twice as long
/// after each further failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Never longer than this.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Nor longer than this where a hub asks for more time.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// A model in memory; a shared model has one, another one for each holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(pub u64);

/// Somebody who waits for a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaiterId(pub u64);

/// The rules for all models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `sharing.enabled`.
    pub sharing: bool,
    /// `sharing.max_shared_models`.
    pub max_shared_models: usize,
    /// `sharing.unload_after_seconds`.
    pub unload_after: Duration,
    /// `sharing.reference_counting`.
    pub reference_counting: bool,
    /// `device_preference`: for the models that do not say.
    pub device_preference: DeviceChoice,
    /// Leases of one connection.
    pub max_leases: usize,
}

/// The rules for one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelPolicy {
    /// `models.<id>.shared`.
    pub is_shared: bool,
    /// `models.<id>.device`.
    pub device: DeviceChoice,
}

/// What new settings changed of a model, beside its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Nothing: what is known of it still holds.
    None,
    /// Something, but not where its files come from.
    Settings,
    /// Where its files come from.
    Source,
}

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A lease for a connection.
    Lease(ConnectionId),
    /// The model for one request.
    Use,
    /// The model of a lease for one request, whose copy has left the memory.
    UseOfLease(LeaseId),
    /// The model in memory.
    Preload,
}

/// What is to be done now. The caller does it, and tells of the outcome.
#[derive(Debug, Clone)]
pub enum Action {
    /// Find the files and compute the need; then [`Scheduler::prepared`].
    Prepare {
        /// Of which model.
        model: ModelId,
    },
    /// Bring it into memory; then [`Scheduler::loaded`].
    Load {
        /// As which copy.
        copy: InstanceId,
        /// Which model.
        model: ModelId,
        /// Where.
        device: Device,
        /// What it will take there.
        bytes: u64,
    },
    /// Take it out of memory; then, when the memory is back, [`Scheduler::unloaded`].
    Unload {
        /// Which copy.
        copy: InstanceId,
    },
    /// A waiter has what it waits for.
    Grant {
        /// Who.
        waiter: WaiterId,
        /// What.
        granted: Granted,
    },
    /// A waiter cannot have it.
    Fail {
        /// Who.
        waiter: WaiterId,
        /// Why.
        error: WaitError,
    },
    /// A waiter is told that others must leave first.
    WaitingForRoom {
        /// Who.
        waiter: WaiterId,
    },
}

/// What a waiter gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granted {
    /// A lease, on a copy.
    Lease(LeaseId, InstanceId),
    /// A copy for one request; ended by [`Scheduler::end_use`].
    Use(InstanceId),
    /// It is in memory, and was before it was asked for, or not.
    Preloaded {
        /// Which copy.
        copy: InstanceId,
        /// Whether it was there before.
        was_loaded: bool,
    },
}

/// Why a waiter cannot have its model.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WaitError {
    /// There is none of that id.
    #[error("the model is not configured")]
    NotConfigured,
    /// It cannot be loaded; it will be tried again after a time.
    #[error("it cannot be loaded; it will be tried again in {} s", retry_in.as_secs_f64().ceil())]
    Failed {
        /// Why.
        cause: Arc<LoadFailure>,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// Its place cannot be found.
    #[error("{}", reasons.join("; "))]
    Refused {
        /// Which kind of refusal.
        verdict: PlacementVerdict,
        /// Why, device by device.
        reasons: Vec<String>,
    },
    /// The connection may take no more leases, or the lease has ended meanwhile.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// A model that is not shared cannot be loaded ahead of its holders.
    #[error("it is not shared: each holder gets a copy of its own, and there is none to preload")]
    NotShared,
}

/// Where a copy is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyState {
    /// On its way into memory.
    Loading,
    /// In memory.
    Ready,
    /// Takes nobody in; leaves when its work is done.
    Draining,
    /// On its way out of memory.
    Unloading,
}

/// One model in memory.
#[derive(Debug, Clone)]
pub struct Copy {
    /// Of which model.
    pub model: ModelId,
    /// Where.
    pub device: Device,
    /// What it takes there.
    pub bytes: u64,
    /// Where it is in its life.
    pub state: CopyState,
    /// Whether it is for everybody, or for one holder.
    pub is_shared: bool,
    /// Requests that use it now.
    pub uses: usize,
    /// Leases that are bound to it.
    pub leases: usize,
    /// The last release or end of a request.
    pub last_used: Instant,
    /// For a copy of its own: who waits for it.
    waiter: Option<WaiterId>,
}

#[derive(Debug)]
struct Model {
    policy: ModelPolicy,
    need: Option<Need>,
    is_preparing: bool,
    /// Its settings changed while it was prepared: what was found is for one load alone.
    is_outdated: bool,
    failed: Option<Failed>,
    avoid: Option<Device>,
}

/// A load that failed.
#[derive(Debug, Clone)]
pub struct Failed {
    /// Why.
    pub cause: Arc<LoadFailure>,
    /// When the next request tries again.
    pub retry_at: Instant,
    tries: u32,
}

#[derive(Debug)]
struct Waiter {
    model: ModelId,
    want: Want,
    /// Whether it had to wait for a load.
    has_waited: bool,
    was_told: bool,
}

/// Who is in memory, who wants to be, and who holds whom.
#[derive(Debug)]
pub struct Scheduler {
    policy: Policy,
    models: BTreeMap<ModelId, Model>,
    copies: BTreeMap<InstanceId, Copy>,
    leases: LeaseTable,
    bindings: HashMap<LeaseId, InstanceId>,
    waiters: BTreeMap<WaiterId, Waiter>,
    devices: Devices,
    journal: Journal,
    last_id: u64,
    actions: Vec<Action>,
}

/// What a request on a lease gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseUse {
    /// Its copy; ended by [`Scheduler::end_use`].
    Now(InstanceId),
    /// Its copy has left the memory, and is on its way back.
    Wait(WaiterId),
}

fn held_by(leases: usize) -> String {
    match leases {
        1 => "1 lease holds it".into(),
        leases => format!("{leases} leases hold it"),
    }
}

/// Why a model cannot be unloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnloadError {
    /// There is none of that id.
    #[error("the model is not configured")]
    NotConfigured,
    /// It is held.
    #[error("{}", held_by(*.0))]
    Held(usize),
    /// It is on its way in, for somebody who waits.
    #[error("it is being loaded for somebody: wait until it is there")]
    Loading,
}

impl Scheduler {
    /// Nothing is loaded.
    #[must_use]
    pub fn new(
        policy: Policy,
        models: impl IntoIterator<Item = (ModelId, ModelPolicy)>,
        devices: impl Into<Devices>,
    ) -> Self {
        let models = models.into_iter().map(|(id, policy)| (id, Model::new(policy))).collect();
        Self {
            policy,
            models,
            copies: BTreeMap::new(),
            leases: LeaseTable::default(),
            bindings: HashMap::new(),
            waiters: BTreeMap::new(),
            devices: devices.into(),
            journal: Journal::default(),
            last_id: 0,
            actions: Vec::new(),
        }
    }

    /// What is to be done since this was last asked.
    #[must_use]
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Somebody wants a model.
    pub fn ask(&mut self, model: &ModelId, want: Want, now: Instant) -> WaiterId {
        if want == Want::Preload
            && let Some(failed) = self.models.get_mut(model).and_then(|m| m.failed.as_mut())
            && failed.cause.wait().is_none()
        {
            // Somebody asks for just this: the cause may have been mended. Not where a hub wants
            // to be left alone.
            failed.retry_at = now;
        }
        let id = WaiterId(self.next_id());
        let waiter = Waiter { model: model.clone(), want, has_waited: false, was_told: false };
        self.waiters.insert(id, waiter);
        self.settle(now);
        id
    }

    /// A waiter has gone. Its load goes on: others may wait for it, or come for it.
    pub fn leave(&mut self, waiter: WaiterId, now: Instant) {
        self.waiters.remove(&waiter);
        self.settle(now);
    }

    /// A request on a lease.
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
        if let Some(copy) = self.bindings.get(&lease)
            && let Some(resident) = self.copies.get_mut(copy)
            && resident.state == CopyState::Ready
        {
            resident.uses += 1;
            return Ok(LeaseUse::Now(*copy));
        }
        Ok(LeaseUse::Wait(self.ask(&model, Want::UseOfLease(lease), now)))
    }

    /// A request is done with a copy.
    pub fn end_use(&mut self, copy: InstanceId, now: Instant) {
        if let Some(resident) = self.copies.get_mut(&copy) {
            resident.uses = resident.uses.saturating_sub(1);
            resident.last_used = now;
            let model = resident.model.clone();
            self.leases.touch(&model, now);
            self.let_go(copy);
        }
        self.settle(now);
    }

    /// A lease ends.
    ///
    /// # Errors
    /// [`LeaseError::NotHeld`], also the second time.
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

    /// All leases of a connection end; answers how many there were.
    pub fn end_connection(&mut self, connection: ConnectionId, now: Instant) -> usize {
        let held: Vec<LeaseId> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.connection == connection)
            .map(|(id, _)| id)
            .collect();
        let count = self.leases.end_connection(connection, now);
        for lease in held {
            self.unbind(lease, now);
        }
        let has_left = |waiter: &Waiter| waiter.want == Want::Lease(connection);
        self.waiters.retain(|_, waiter| !has_left(waiter));
        self.settle(now);
        count
    }

    /// The files of a model are there and its need is known, or not.
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
                Err(cause) => self.fail(model, cause, now),
            }
        }
        self.settle(now);
    }

    /// A copy is in memory and takes so much there, or it could not be loaded.
    pub fn loaded(
        &mut self,
        copy: InstanceId,
        result: Result<u64, Arc<LoadFailure>>,
        now: Instant,
    ) {
        let Some(resident) = self.copies.get_mut(&copy) else { return };
        let model = resident.model.clone();
        match result {
            Ok(bytes) => {
                resident.state = CopyState::Ready;
                resident.bytes = bytes;
                resident.last_used = now;
                if let Some(state) = self.models.get_mut(&model) {
                    state.failed = None;
                    state.avoid = None;
                }
                self.give_own_copy(copy, now);
            }
            Err(cause) => {
                let device = resident.device;
                self.forget(copy);
                let choice = self.choice(&model);
                // Its figures said that there was room, and there was none: the CPU is left.
                let may_go_elsewhere = cause.is_of_the_device()
                    && device != Device::Cpu
                    && choice == DeviceChoice::Auto;
                match self.models.get_mut(&model) {
                    Some(state) if may_go_elsewhere => state.avoid = Some(device),
                    _ => self.fail(&model, cause, now),
                }
            }
        }
        self.settle(now);
    }

    /// The memory of a copy is back.
    pub fn unloaded(&mut self, copy: InstanceId, now: Instant) {
        self.forget(copy);
        self.settle(now);
    }

    /// The devices have been asked again.
    pub fn set_devices(&mut self, devices: impl Into<Devices>, now: Instant) {
        self.devices = devices.into();
        self.settle(now);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        let due: Vec<InstanceId> = self
            .copies
            .iter()
            .filter(|(_, copy)| self.unload_at(copy).is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for copy in due {
            let seconds = self.policy.unload_after.as_secs();
            self.start_unload(
                copy,
                Verdict::Unload,
                format!("nobody used it for {seconds} s"),
                now,
            );
        }
        self.settle(now);
    }

    /// When [`Scheduler::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.copies.values().filter_map(|copy| self.unload_at(copy)).min()
    }

    /// A model shall leave the memory: at once, or when its running work is done. Answers the
    /// copies that leave, those too that were on their way out before.
    ///
    /// # Errors
    /// When it is held.
    pub fn unload(
        &mut self,
        model: &ModelId,
        now: Instant,
    ) -> Result<Vec<InstanceId>, UnloadError> {
        if !self.models.contains_key(model) {
            return Err(UnloadError::NotConfigured);
        }
        let leases = self.leases.usage(model).leases;
        if self.copies.values().any(|copy| copy.model == *model && self.is_held(copy)) {
            return Err(UnloadError::Held(leases));
        }
        let is_coming = |copy: &Copy| copy.model == *model && copy.state == CopyState::Loading;
        if self.copies.values().any(is_coming)
            || self.models.get(model).is_some_and(|m| m.is_preparing)
        {
            return Err(UnloadError::Loading);
        }
        let is_its = |copy: &Copy| copy.model == *model && copy.state == CopyState::Ready;
        for copy in self.copies_where(is_its) {
            self.start_unload(copy, Verdict::Unload, "it was told to".into(), now);
        }
        let copies = self.copies_where(|copy| copy.model == *model);
        self.settle(now);
        Ok(copies)
    }

    /// All models that nobody holds or uses shall leave the memory.
    pub fn cleanup(&mut self, now: Instant) -> Vec<InstanceId> {
        let copies = self.copies_where(|copy| self.is_idle(copy));
        for copy in &copies {
            self.start_unload(*copy, Verdict::Unload, "unused models were to leave".into(), now);
        }
        self.settle(now);
        copies
    }

    /// Other rules are in force. Models that are not named stay as they are.
    pub fn reconfigure(
        &mut self,
        policy: Policy,
        models: impl IntoIterator<Item = (ModelId, ModelPolicy, Change)>,
        now: Instant,
    ) {
        self.policy = policy;
        for (id, policy, change) in models {
            let model = self.models.entry(id).or_insert_with(|| Model::new(policy));
            model.policy = policy;
            if change == Change::None {
                continue;
            }
            // What failed may have been mended by just this. But a hub that wants to be left alone
            // is, as long as the model comes from it.
            let is_asked_of_hub = |failed: &Failed| failed.cause.wait().is_some();
            if change == Change::Source || !model.failed.as_ref().is_some_and(is_asked_of_hub) {
                model.failed = None;
            }
            if model.is_preparing {
                model.is_outdated = true;
            } else {
                model.need = None;
            }
        }
        self.tick(now);
    }

    /// The copies, by id.
    pub fn copies(&self) -> impl Iterator<Item = (InstanceId, &Copy)> {
        self.copies.iter().map(|(id, copy)| (*id, copy))
    }

    /// The leases.
    #[must_use]
    pub fn leases(&self) -> &LeaseTable {
        &self.leases
    }

    /// The rules.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The devices, as they were last asked.
    #[must_use]
    pub fn devices(&self) -> &[DeviceFigures] {
        &self.devices.figures
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Who waits for a model.
    pub fn waiters_of(&self, model: &ModelId) -> impl Iterator<Item = WaiterId> {
        self.waiters.iter().filter(move |(_, w)| w.model == *model).map(|(id, _)| *id)
    }

    /// Whether a model's files are being looked for.
    #[must_use]
    pub fn is_preparing(&self, model: &ModelId) -> bool {
        self.models.get(model).is_some_and(|state| state.is_preparing)
    }

    /// The last load of a model, if it failed.
    #[must_use]
    pub fn failed(&self, model: &ModelId) -> Option<&Failed> {
        self.models.get(model)?.failed.as_ref()
    }

    /// When a copy is unloaded if nobody comes for it.
    #[must_use]
    pub fn unload_at(&self, copy: &Copy) -> Option<Instant> {
        if !copy.is_shared || !self.is_idle(copy) {
            return None;
        }
        copy.last_used.checked_add(self.policy.unload_after)
    }

    /// The decisions about a model, the newest first.
    #[must_use]
    pub fn why(&self, model: &ModelId, now: Instant) -> Vec<Decision> {
        self.journal.of(model, now)
    }

    /// What a load of a model would do now, with a need that was just computed.
    #[must_use]
    pub fn plan(&self, model: &ModelId, need: Need) -> Option<Decision> {
        let state = self.models.get(model)?;
        let is_shared = self.policy.sharing && state.policy.is_shared;
        if is_shared && let Some(copy) = self.copies.values().find(|c| c.model == *model) {
            let reason = format!("it is in memory already, on {}", copy.device);
            let mut stays = decision(model, Verdict::Stay, reason);
            (stays.device, stays.need_bytes) = (copy.device.to_string(), copy.bytes);
            return Some(stays);
        }
        let wish = Wish { need, choice: self.choice(model), is_shared, avoid: state.avoid };
        let placement = place(&wish, &self.policy, &self.devices, &self.residents());
        Some(self.told(model, need, &placement))
    }

    // ---- what each event ends in

    fn settle(&mut self, now: Instant) {
        let mut taken = Taken::default();
        let waiters: Vec<WaiterId> = self.waiters.keys().copied().collect();
        for waiter in waiters {
            self.step(waiter, &mut taken, now);
        }
        // Last, so that who has waited for one of them gets it.
        for copy in self.surplus() {
            let reason = "fewer models may be loaded now (sharing.max_shared_models)".into();
            self.start_unload(copy, Verdict::Unload, reason, now);
        }
    }

    fn step(&mut self, id: WaiterId, taken: &mut Taken, now: Instant) {
        let Some(waiter) = self.waiters.get(&id) else { return };
        let (model, want) = (waiter.model.clone(), waiter.want);
        let Some(state) = self.models.get_mut(&model) else {
            return self.refuse(id, WaitError::NotConfigured);
        };
        if let Some(failed) = &state.failed
            && failed.retry_at > now
        {
            let error = WaitError::Failed {
                cause: Arc::clone(&failed.cause),
                retry_in: failed.retry_at - now,
            };
            return self.refuse(id, error);
        }
        let is_shared = self.policy.sharing && state.policy.is_shared;
        if !is_shared && want == Want::Preload {
            return self.refuse(id, WaitError::NotShared);
        }
        let its = |copy: &Copy| {
            copy.model == model && if is_shared { copy.is_shared } else { copy.waiter == Some(id) }
        };
        if let Some((copy, resident)) = self.copies.iter().find(|(_, copy)| its(copy)) {
            // What is on its way in will be granted; what is on its way out must have left.
            if resident.state == CopyState::Ready {
                let copy = *copy;
                self.grant(id, copy, now);
            }
            return self.note_wait(id);
        }
        self.note_wait(id);
        if let Some(placement) = placement::refuse_unseen(self.choice(&model), &self.devices) {
            let mut told = self.told(&model, Need::default(), &placement);
            told.need_bytes = 0;
            self.journal.note(told, now);
            let Placement { verdict, reasons, .. } = placement;
            return self.refuse(id, WaitError::Refused { verdict, reasons });
        }
        let Some(state) = self.models.get_mut(&model) else { return };
        let Some(need) = state.need else {
            if !state.is_preparing {
                state.is_preparing = true;
                self.actions.push(Action::Prepare { model });
            }
            return;
        };
        let avoid = state.avoid;
        if is_shared && taken.count {
            return; // somebody before it waits for just this
        }
        let wish = Wish { need, choice: self.choice(&model), is_shared, avoid };
        let placement = place(&wish, &self.policy, &self.devices, &self.residents());
        if placement.device.is_some_and(|device| taken.devices.contains(&device)) {
            return;
        }
        let told = self.told(&model, need, &placement);
        self.journal.note(told, now);
        let Placement { verdict, device, reasons } = placement;
        match (verdict, device) {
            (PlacementVerdict::Load { bytes }, Some(device)) => {
                self.start_load(id, model, device, bytes, is_shared, now);
            }
            (PlacementVerdict::Wait, device) => {
                taken.mark(device, is_shared);
                self.tell_waiting(id);
            }
            (PlacementVerdict::MakeRoom(copies), device) => {
                taken.mark(device, is_shared);
                for copy in copies {
                    self.start_unload(
                        copy,
                        Verdict::Evict,
                        format!("to make room for \"{model}\""),
                        now,
                    );
                }
                self.tell_waiting(id);
            }
            (verdict, _) => self.refuse(id, WaitError::Refused { verdict, reasons }),
        }
    }

    fn start_load(
        &mut self,
        waiter: WaiterId,
        model: ModelId,
        device: Device,
        bytes: u64,
        is_shared: bool,
        now: Instant,
    ) {
        let copy = InstanceId(self.next_id());
        let resident = Copy {
            model: model.clone(),
            device,
            bytes,
            state: CopyState::Loading,
            is_shared,
            uses: 0,
            leases: 0,
            last_used: now,
            waiter: (!is_shared).then_some(waiter),
        };
        self.copies.insert(copy, resident);
        if let Some(state) = self.models.get_mut(&model)
            && std::mem::take(&mut state.is_outdated)
        {
            state.need = None;
        }
        self.actions.push(Action::Load { copy, model, device, bytes });
    }

    /// A copy leaves: now if it has no work, else when that is done.
    fn start_unload(&mut self, copy: InstanceId, verdict: Verdict, reason: String, now: Instant) {
        let Some(resident) = self.copies.get_mut(&copy) else { return };
        let mut told = decision(&resident.model, verdict, reason);
        (told.device, told.need_bytes) = (resident.device.to_string(), resident.bytes);
        self.journal.note(told, now);
        if resident.uses > 0 {
            resident.state = CopyState::Draining;
        } else {
            resident.state = CopyState::Unloading;
            self.actions.push(Action::Unload { copy });
        }
    }

    fn grant(&mut self, id: WaiterId, copy: InstanceId, now: Instant) {
        let Some(waiter) = self.waiters.remove(&id) else { return };
        let Some(resident) = self.copies.get_mut(&copy) else { return };
        let granted = match waiter.want {
            Want::Lease(connection) => {
                let limit = self.policy.max_leases;
                match self.leases.grant(connection, &waiter.model, limit, now) {
                    Ok(lease) => {
                        self.bind(lease, copy);
                        Ok(Granted::Lease(lease, copy))
                    }
                    Err(error) => Err(error),
                }
            }
            Want::Use => {
                resident.uses += 1;
                Ok(Granted::Use(copy))
            }
            Want::UseOfLease(lease) => {
                let is_held = self.leases.iter().any(|(id, _)| id == lease);
                if is_held {
                    resident.uses += 1;
                    self.bind(lease, copy);
                    Ok(Granted::Use(copy))
                } else {
                    Err(LeaseError::NotHeld(lease))
                }
            }
            Want::Preload => {
                resident.last_used = now;
                Ok(Granted::Preloaded { copy, was_loaded: !waiter.has_waited })
            }
        };
        if let Some(resident) = self.copies.get_mut(&copy) {
            resident.waiter = None;
        }
        self.leases.touch(&waiter.model, now);
        match granted {
            Ok(granted) => self.actions.push(Action::Grant { waiter: id, granted }),
            Err(error) => self.actions.push(Action::Fail { waiter: id, error: error.into() }),
        }
        self.let_go(copy);
    }

    /// A copy for one holder is granted to it, or leaves again if it has gone.
    fn give_own_copy(&mut self, copy: InstanceId, now: Instant) {
        let Some(waiter) = self.copies.get(&copy).and_then(|resident| resident.waiter) else {
            return;
        };
        if self.waiters.contains_key(&waiter) {
            self.grant(waiter, copy, now);
        } else {
            self.let_go(copy);
        }
    }

    /// What is to leave leaves when its work is done, and what was one holder's when it has none.
    fn let_go(&mut self, copy: InstanceId) {
        let Some(resident) = self.copies.get_mut(&copy) else { return };
        let waits = resident.waiter.is_some_and(|waiter| self.waiters.contains_key(&waiter));
        let has_ended = match resident.state {
            CopyState::Draining => true,
            CopyState::Ready => !resident.is_shared && resident.leases == 0 && !waits,
            CopyState::Loading | CopyState::Unloading => false,
        };
        if has_ended && resident.uses == 0 {
            resident.state = CopyState::Unloading;
            self.actions.push(Action::Unload { copy });
        }
    }

    /// Several requests of one lease may come back to its model at once: it counts once.
    fn bind(&mut self, lease: LeaseId, copy: InstanceId) {
        let before = self.bindings.insert(lease, copy);
        if before == Some(copy) {
            return;
        }
        if let Some(before) = before.and_then(|before| self.copies.get_mut(&before)) {
            before.leases = before.leases.saturating_sub(1);
        }
        if let Some(resident) = self.copies.get_mut(&copy) {
            resident.leases += 1;
        }
    }

    fn unbind(&mut self, lease: LeaseId, now: Instant) {
        let Some(copy) = self.bindings.remove(&lease) else { return };
        if let Some(resident) = self.copies.get_mut(&copy) {
            resident.leases = resident.leases.saturating_sub(1);
            resident.last_used = now;
            self.let_go(copy);
        }
    }

    fn forget(&mut self, copy: InstanceId) {
        let Some(resident) = self.copies.remove(&copy) else { return };
        self.bindings.retain(|_, bound| *bound != copy);
        let is_last = !self.copies.values().any(|other| other.model == resident.model);
        if is_last && let Some(state) = self.models.get_mut(&resident.model) {
            // Its files may be others the next time.
            state.need = None;
        }
    }

    fn fail(&mut self, model: &ModelId, cause: Arc<LoadFailure>, now: Instant) {
        let Some(state) = self.models.get_mut(model) else { return };
        let tries = state.failed.as_ref().map_or(0, |failed| failed.tries) + 1;
        let wait = FIRST_RETRY.saturating_mul(1 << (tries - 1).min(16)).min(LAST_RETRY);
        // Whoever asked to be left alone is, for a day at most.
        let wait = wait.max(cause.wait().unwrap_or_default().min(LONGEST_WAIT));
        self.journal
            .note(decision(model, Verdict::Fail, crate::request::failure::chain(&*cause)), now);
        state.failed = Some(Failed { cause, retry_at: now + wait, tries });
        (state.need, state.is_outdated) = (None, false);
        state.avoid = None;
    }

    fn refuse(&mut self, waiter: WaiterId, error: WaitError) {
        self.waiters.remove(&waiter);
        self.actions.push(Action::Fail { waiter, error });
    }

    fn note_wait(&mut self, waiter: WaiterId) {
        if let Some(waiter) = self.waiters.get_mut(&waiter) {
            waiter.has_waited = true;
        }
    }

    fn tell_waiting(&mut self, id: WaiterId) {
        if let Some(waiter) = self.waiters.get_mut(&id)
            && !std::mem::replace(&mut waiter.was_told, true)
        {
            self.actions.push(Action::WaitingForRoom { waiter: id });
        }
    }

    // ---- what follows from the state

    fn choice(&self, model: &ModelId) -> DeviceChoice {
        match self.models.get(model).map(|state| state.policy.device) {
            Some(DeviceChoice::Auto) | None => self.policy.device_preference,
            Some(choice) => choice,
        }
    }

    /// Whether leases keep it in memory.
    fn is_held(&self, copy: &Copy) -> bool {
        copy.leases > 0 && (self.policy.reference_counting || !copy.is_shared)
    }

    fn is_idle(&self, copy: &Copy) -> bool {
        copy.state == CopyState::Ready && copy.uses == 0 && !self.is_held(copy)
    }

    fn copies_where(&self, is_wanted: impl Fn(&Copy) -> bool) -> Vec<InstanceId> {
        self.copies.iter().filter(|(_, copy)| is_wanted(copy)).map(|(id, _)| *id).collect()
    }

    /// The idle models that are more than may be loaded, those that were used longest ago.
    fn surplus(&self) -> Vec<InstanceId> {
        let stays = |copy: &&Copy| {
            copy.is_shared && !matches!(copy.state, CopyState::Draining | CopyState::Unloading)
        };
        let count = self.copies.values().filter(stays).count();
        let mut idle = self.copies_where(|copy| copy.is_shared && self.is_idle(copy));
        idle.sort_by_key(|copy| self.copies.get(copy).map(|copy| copy.last_used));
        idle.truncate(count.saturating_sub(self.policy.max_shared_models));
        idle
    }

    fn residents(&self) -> Vec<Resident> {
        let standing = |copy: &Copy| match copy.state {
            CopyState::Loading => Standing::Coming,
            CopyState::Draining | CopyState::Unloading => Standing::Leaving,
            CopyState::Ready if self.is_held(copy) || copy.waiter.is_some() => Standing::Held,
            CopyState::Ready if copy.uses > 0 && copy.is_shared => Standing::Busy(copy.last_used),
            CopyState::Ready if copy.uses > 0 => Standing::Leaving,
            CopyState::Ready => Standing::Idle(copy.last_used),
        };
        let resident = |(id, copy): (&InstanceId, &Copy)| Resident {
            copy: *id,
            model: copy.model.clone(),
            device: copy.device,
            bytes: copy.bytes,
            is_shared: copy.is_shared,
            standing: standing(copy),
        };
        self.copies.iter().map(resident).collect()
    }

    fn told(&self, model: &ModelId, need: Need, placement: &Placement) -> Decision {
        let (verdict, evicted) = match &placement.verdict {
            PlacementVerdict::Load { .. } => (Verdict::Load, &[][..]),
            PlacementVerdict::Wait => (Verdict::Wait, &[][..]),
            PlacementVerdict::MakeRoom(copies) => (Verdict::Wait, &copies[..]),
            PlacementVerdict::Never | PlacementVerdict::NoMemory | PlacementVerdict::TooMany => {
                (Verdict::Refuse, &[][..])
            }
        };
        let model_of = |copy: &InstanceId| Some(self.copies.get(copy)?.model.clone());
        let need_bytes = placement.device.and_then(|device| device.share_of(need));
        Decision {
            model: model.clone(),
            verdict,
            device: placement.device.map(|device| device.to_string()).unwrap_or_default(),
            need_bytes: need_bytes.unwrap_or(need.cpu_bytes),
            evicts: evicted
                .iter()
                .filter_map(model_of)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            reasons: placement.reasons.iter().cloned().map(Reason).collect(),
            age_ms: 0,
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

impl Model {
    fn new(policy: ModelPolicy) -> Self {
        Self {
            policy,
            need: None,
            is_preparing: false,
            is_outdated: false,
            failed: None,
            avoid: None,
        }
    }
}

/// Room that waiters before this one wait for.
#[derive(Debug, Default)]
struct Taken {
    count: bool,
    devices: BTreeSet<Device>,
}

impl Taken {
    fn mark(&mut self, device: Option<Device>, is_shared: bool) {
        self.devices.extend(device);
        self.count |= is_shared;
    }
}
