//! The scheduler's state, and what can be read from it.

use crate::models::lease::LeaseTable;
use crate::models::scheduler::device::{DeviceFigures, Devices};
use crate::models::scheduler::explain;
use crate::models::scheduler::ids::{InstanceId, WaiterId};
use crate::models::scheduler::instances::{Instance, Instances};
use crate::models::scheduler::journal::Journal;
use crate::models::scheduler::model_state::ModelState;
use crate::models::scheduler::placement::{PlacementRequest, place};
use crate::models::scheduler::policy::{ModelPolicy, Policy};
use crate::models::scheduler::retry::FailedLoad;
use crate::models::scheduler::types::Action;
use crate::models::scheduler::waiters::Waiters;
use emberd_engine::Need;
use emberd_protocol::{Decision, ModelId, Verdict};
use std::collections::BTreeMap;
use std::time::Instant;

/// Decides which models are in memory, on which device, and for whom.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) policy: Policy,
    pub(super) models: BTreeMap<ModelId, ModelState>,
    pub(super) instances: Instances,
    pub(super) leases: LeaseTable,
    pub(super) waiters: Waiters,
    pub(super) devices: Devices,
    pub(super) journal: Journal,
    pub(super) actions: Vec<Action>,
    last_id: u64,
}

impl Scheduler {
    /// A scheduler for these models, none of them loaded.
    #[must_use]
    pub fn new(
        policy: Policy,
        models: impl IntoIterator<Item = (ModelId, ModelPolicy)>,
        devices: impl Into<Devices>,
    ) -> Self {
        let models = models.into_iter().map(|(id, policy)| (id, ModelState::new(policy))).collect();
        Self {
            policy,
            models,
            instances: Instances::default(),
            leases: LeaseTable::default(),
            waiters: Waiters::default(),
            devices: devices.into(),
            journal: Journal::default(),
            actions: Vec::new(),
            last_id: 0,
        }
    }

    /// The actions that were decided since the last call.
    #[must_use]
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// The instances, ordered by id.
    pub fn instances(&self) -> impl Iterator<Item = (InstanceId, &Instance)> {
        self.instances.iter()
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

    /// The number of waiters.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// The waiters for a model.
    pub fn waiters_of(&self, model: &ModelId) -> impl Iterator<Item = WaiterId> {
        self.waiters.of_model(model)
    }

    /// Whether a model's files are being looked for.
    #[must_use]
    pub fn is_preparing(&self, model: &ModelId) -> bool {
        self.models.get(model).is_some_and(|state| state.is_preparing)
    }

    /// The last load of a model, if it failed.
    #[must_use]
    pub fn failed(&self, model: &ModelId) -> Option<&FailedLoad> {
        self.models.get(model)?.failed.as_ref()
    }

    /// When [`Scheduler::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.instances.iter().filter_map(|(_, instance)| self.unload_at(instance)).min()
    }

    /// When an instance is unloaded unless it is used before.
    #[must_use]
    pub fn unload_at(&self, instance: &Instance) -> Option<Instant> {
        instance.unload_at(&self.policy)
    }

    /// The decisions about a model, the newest first.
    #[must_use]
    pub fn why(&self, model: &ModelId, now: Instant) -> Vec<Decision> {
        self.journal.of(model, now)
    }

    /// What a load of a model would do now, given the memory that it needs. `None` if no model has
    /// this id.
    #[must_use]
    pub fn plan(&self, model: &ModelId, need: Need) -> Option<Decision> {
        let state = self.models.get(model)?;
        let is_shared = state.is_shared(&self.policy);
        if is_shared && let Some(instance) = self.instances.of_model(model).next() {
            let reason = format!("already in memory on {}", instance.device);
            return Some(explain::of_instance(instance, Verdict::Stay, reason));
        }
        let choice = state.choice(&self.policy);
        let request = PlacementRequest { need, choice, is_shared, avoid: state.avoid };
        let residents = self.instances.residents(&self.policy);
        let placement = place(&request, &self.policy, &self.devices, &residents);
        Some(explain::of_placement(model, need, &placement, &self.instances))
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}
