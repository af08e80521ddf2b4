//! The scheduler with a caller that a test controls.

use crate::ground::connection_id::ConnectionId;
use crate::models::scheduler::device::need_on;
use crate::models::scheduler::{
    Action, Device, DeviceChoice, DeviceFigures, Granted, InstanceId, ModelPolicy,
    PlacementVerdict, Policy, Scheduler, WaitError, WaiterId, Want,
};
use DeviceChoice::{Auto, Cpu};
use emberd_engine::Need;
use emberd_protocol::{LeaseId, ModelId};
use std::collections::HashMap;
use std::time::{Duration, Instant};

pub(super) const GIB: u64 = 1 << 30;

pub(super) fn id(id: &str) -> ModelId {
    ModelId::new(id).unwrap()
}

pub(super) fn policy() -> Policy {
    Policy {
        sharing: true,
        max_shared_models: 5,
        unload_after: Duration::from_secs(1800),
        reference_counting: true,
        device_preference: Auto,
        max_leases: 100,
    }
}

pub(super) fn cpu(total_bytes: u64) -> DeviceFigures {
    DeviceFigures {
        device: Device::Cpu,
        name: "cpu".into(),
        total_bytes,
        free_bytes: total_bytes,
        budget_bytes: total_bytes,
        others_bytes: 0,
    }
}

pub(super) fn gpu(number: u32, total_bytes: u64, others_bytes: u64) -> DeviceFigures {
    DeviceFigures {
        device: Device::Cuda(number),
        name: "gpu".into(),
        total_bytes,
        free_bytes: total_bytes - others_bytes,
        budget_bytes: total_bytes / 10 * 8,
        others_bytes,
    }
}

pub(super) fn both(bytes: u64) -> Need {
    Need { cpu_bytes: bytes, gpu_bytes: Some(bytes) }
}

/// The scheduler with a caller that carries out its actions: at once, or when the test says so.
pub(super) struct Play {
    pub(super) scheduler: Scheduler,
    pub(super) needs: HashMap<ModelId, Need>,
    pub(super) now: Instant,
    pub(super) granted: HashMap<WaiterId, Granted>,
    pub(super) failed: HashMap<WaiterId, WaitError>,
    pub(super) loading: Vec<(InstanceId, ModelId, Device)>,
    pub(super) unloading: Vec<InstanceId>,
    pub(super) loads: Vec<(ModelId, Device)>,
    /// Loads and unloads end only when the test says so.
    pub(super) is_slow: bool,
}

impl Play {
    pub(super) fn new(
        policy: Policy,
        devices: Vec<DeviceFigures>,
        models: &[(&str, DeviceChoice, Need)],
    ) -> Self {
        let rules = models
            .iter()
            .map(|(name, device, _)| (id(name), ModelPolicy { is_shared: true, device: *device }));
        Self {
            scheduler: Scheduler::new(policy, rules, devices),
            needs: models.iter().map(|(name, _, need)| (id(name), *need)).collect(),
            now: Instant::now(),
            granted: HashMap::new(),
            failed: HashMap::new(),
            loading: Vec::new(),
            unloading: Vec::new(),
            loads: Vec::new(),
            is_slow: false,
        }
    }

    /// A machine with room for all models.
    pub(super) fn roomy(models: &[&str]) -> Self {
        let models: Vec<_> = models.iter().map(|name| (*name, Cpu, both(GIB))).collect();
        Self::new(policy(), vec![cpu(1000 * GIB)], &models)
    }

    pub(super) fn run(&mut self) {
        loop {
            let actions = self.scheduler.take_actions();
            if actions.is_empty()
                && (self.is_slow || self.loading.is_empty() && self.unloading.is_empty())
            {
                return;
            }
            for action in actions {
                match action {
                    Action::Prepare { model } => {
                        let need = self.needs[&model];
                        self.scheduler.prepared(&model, Ok(need), self.now);
                    }
                    Action::Load { instance, model, device, .. } => {
                        self.loads.push((model.clone(), device));
                        self.loading.push((instance, model, device));
                    }
                    Action::Unload { instance } => self.unloading.push(instance),
                    Action::Grant { waiter, granted } => {
                        self.granted.insert(waiter, granted);
                    }
                    Action::Fail { waiter, error } => {
                        self.failed.insert(waiter, error);
                    }
                    Action::WaitingForRoom { .. } => {}
                }
            }
            if !self.is_slow {
                self.finish();
            }
        }
    }

    /// All loads and unloads that are running succeed.
    pub(super) fn finish(&mut self) {
        for (instance, model, device) in std::mem::take(&mut self.loading) {
            let bytes = need_on(device, self.needs[&model]).unwrap();
            self.scheduler.loaded(instance, Ok(bytes), self.now);
        }
        for instance in std::mem::take(&mut self.unloading) {
            self.scheduler.unloaded(instance, self.now);
        }
    }

    pub(super) fn ask(&mut self, model: &str, want: Want) -> WaiterId {
        let waiter = self.scheduler.ask(&id(model), want, self.now);
        self.run();
        waiter
    }

    pub(super) fn lease(&mut self, connection: ConnectionId, model: &str) -> LeaseId {
        let waiter = self.ask(model, Want::Lease(connection));
        match self.granted.get(&waiter) {
            Some(Granted::Lease(lease, _)) => *lease,
            other => panic!("no lease on {model}: {other:?}, {:?}", self.failed.get(&waiter)),
        }
    }

    /// Uses a model for a moment.
    pub(super) fn touch(&mut self, model: &str) {
        let waiter = self.ask(model, Want::Use);
        match self.granted.get(&waiter) {
            Some(Granted::Use(instance)) => self.scheduler.end_use(*instance, self.now),
            other => panic!("{model} was not granted: {other:?}, {:?}", self.failed.get(&waiter)),
        }
        self.run();
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.scheduler.tick(self.now);
        self.run();
    }

    pub(super) fn in_memory(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.scheduler.instances().map(|(_, instance)| instance.model.to_string()).collect();
        names.sort();
        names
    }

    pub(super) fn verdict(&self, waiter: WaiterId) -> &PlacementVerdict {
        match &self.failed[&waiter] {
            WaitError::Refused { verdict, .. } => verdict,
            other => panic!("failed otherwise: {other}"),
        }
    }
}
