//! What the scheduler knows of a configured model, apart from its instances.

use crate::ground::device::{Device, DeviceChoice};
use crate::models::load_failure::LoadFailure;
use crate::models::scheduler::policy::{ModelPolicy, Policy};
use crate::models::scheduler::retry::FailedLoad;
use crate::settings::Change;
use emberd_engine::Need;
use std::sync::Arc;
use std::time::Instant;

/// What the scheduler knows of a configured model, apart from its instances.
#[derive(Debug)]
pub(super) struct ModelState {
    pub(super) policy: ModelPolicy,
    /// The memory that it takes, once it is prepared.
    pub(super) need: Option<Need>,
    pub(super) is_preparing: bool,
    /// Its settings changed while it was prepared: the result serves one load only.
    is_outdated: bool,
    pub(super) failed: Option<FailedLoad>,
    /// A device that ran out of memory when the model was loaded there.
    pub(super) avoid: Option<Device>,
}

impl ModelState {
    pub(super) fn new(policy: ModelPolicy) -> Self {
        Self {
            policy,
            need: None,
            is_preparing: false,
            is_outdated: false,
            failed: None,
            avoid: None,
        }
    }

    /// Whether all its users share one instance.
    pub(super) fn is_shared(&self, policy: &Policy) -> bool {
        policy.sharing && self.policy.is_shared
    }

    /// The devices that it may use.
    pub(super) fn choice(&self, policy: &Policy) -> DeviceChoice {
        match self.policy.device {
            DeviceChoice::Auto => policy.device_preference,
            choice => choice,
        }
    }

    /// Other settings are in force.
    pub(super) fn reconfigure(&mut self, policy: ModelPolicy, change: Change) {
        self.policy = policy;
        if change == Change::None {
            return;
        }
        // The new settings may remove the cause of a failure. But a delay that a hub asked for
        // stays, as long as the model comes from that hub.
        let is_asked_by_hub = self.failed.as_ref().is_some_and(FailedLoad::is_asked_by_hub);
        if change == Change::Source || !is_asked_by_hub {
            self.failed = None;
        }
        if self.is_preparing {
            self.is_outdated = true;
        } else {
            self.need = None;
        }
    }

    /// A load was started with what its preparation found.
    pub(super) fn load_started(&mut self) {
        if std::mem::take(&mut self.is_outdated) {
            self.need = None;
        }
    }

    /// A load succeeded.
    pub(super) fn load_succeeded(&mut self) {
        self.failed = None;
        self.avoid = None;
    }

    /// A preparation or a load failed.
    pub(super) fn load_failed(&mut self, cause: Arc<LoadFailure>, now: Instant) {
        self.failed = Some(FailedLoad::after(self.failed.as_ref(), cause, now));
        (self.need, self.is_outdated) = (None, false);
        self.avoid = None;
    }
}
