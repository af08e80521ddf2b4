//! The registry's state and its lock, and how the scheduler's actions are carried out.

use crate::ground::connection_id::ConnectionId;
use crate::ground::sync::lock;
use crate::models::devices::Machine;
use crate::models::loader::{Loaders, Prepared};
use crate::models::registry::grants::{GrantOwner, HeldLease, Use};
use crate::models::registry::policy::{model_policies, policy};
use crate::models::registry::waiting::{Delivery, WaitingRoom};
use crate::models::residence::ResidentModel;
use crate::models::scheduler::{Action, Granted, InstanceId, Scheduler, WaiterId};
use crate::models::slot::ModelSlot;
use crate::settings::{ModelSettings, Settings};
use emberd_protocol::{Event, LeaseId, ModelId, Preloaded};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Instant;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

/// All models, by id.
pub(crate) struct Registry {
    inner: Mutex<Inner>,
    pub(super) loaders: Loaders,
    pub(super) machine: Machine,
    pub(super) cpu_workers: usize,
    /// For fetching, which waits on the network.
    pub(super) runtime: OnceLock<Handle>,
    /// Notified when a deadline may be earlier than before.
    pub(super) deadline_changed: Notify,
    /// Counts the instances that were unloaded.
    pub(super) unloaded: watch::Sender<u64>,
}

/// What the registry's lock covers.
pub(super) struct Inner {
    pub(super) scheduler: Scheduler,
    /// When [`Registry::keep_time`] wakes up by itself.
    pub(super) wakes_at: Instant,
    pub(super) models: BTreeMap<ModelId, Arc<ModelSlot>>,
    pub(super) resident: HashMap<InstanceId, ResidentModel>,
    /// The files of models that are about to be loaded.
    pub(super) prepared: HashMap<ModelId, Prepared>,
    pub(super) waiting: WaitingRoom,
}

impl Registry {
    /// The models of the settings, none of them loaded.
    #[must_use]
    pub(crate) fn new(settings: &Settings, loaders: Loaders) -> Arc<Self> {
        let machine = Machine::new(settings);
        let scheduler = Scheduler::new(policy(settings), model_policies(settings), machine.ask());
        let slot = |(id, model): (&ModelId, &ModelSettings)| {
            (id.clone(), Arc::new(ModelSlot::new(id.clone(), model.clone())))
        };
        let inner = Inner {
            scheduler,
            wakes_at: Instant::now(),
            models: settings.models.iter().map(slot).collect(),
            resident: HashMap::new(),
            prepared: HashMap::new(),
            waiting: WaitingRoom::default(),
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            loaders,
            machine,
            cpu_workers: settings.effective_cpu_workers(),
            runtime: OnceLock::new(),
            deadline_changed: Notify::new(),
            unloaded: watch::Sender::new(0),
        })
    }

    /// A model by id.
    #[must_use]
    pub(crate) fn get(&self, id: &ModelId) -> Option<Arc<ModelSlot>> {
        self.inner().models.get(id).cloned()
    }

    /// All models, ordered by id.
    #[must_use]
    pub(crate) fn slots(&self) -> Vec<Arc<ModelSlot>> {
        self.inner().models.values().map(Arc::clone).collect()
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Changes the state, then carries out the scheduler's actions.
    pub(super) fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = change(&mut self.inner());
        self.act();
        result
    }

    /// Carries out the scheduler's actions.
    pub(super) fn act(self: &Arc<Self>) {
        // Sent after the lock is released: the receiver may take it at once.
        let mut deliveries = Vec::new();
        let is_earlier = {
            let mut inner = self.inner();
            for action in inner.scheduler.take_actions() {
                deliveries.extend(self.carry_out(&mut inner, action));
            }
            inner.scheduler.next_deadline().is_some_and(|deadline| deadline < inner.wakes_at)
        };
        deliveries.into_iter().for_each(|deliver| deliver());
        if is_earlier {
            self.deadline_changed.notify_one();
        }
    }

    /// Carries out actions that were decided while the lock was held: in a task, since `act` takes
    /// that lock.
    pub(super) fn act_later(self: &Arc<Self>) {
        if let Some(runtime) = self.runtime.get() {
            let registry = Arc::clone(self);
            runtime.spawn(async move { registry.act() });
        }
    }

    /// Asks the devices for their figures.
    pub(super) fn refresh_devices(self: &Arc<Self>) {
        // A device answers slowly: it is asked before the lock is taken.
        let devices = self.machine.ask();
        self.change(|inner| inner.scheduler.set_devices(devices, Instant::now()));
    }

    fn carry_out(self: &Arc<Self>, inner: &mut Inner, action: Action) -> Option<Delivery> {
        match action {
            Action::Prepare { model } => self.start_preparing(inner, &model),
            Action::Load { instance, model, device, bytes } => {
                inner.tell(&model, &Event::Reading { need_bytes: bytes });
                self.start_loading(inner, instance, &model, device, bytes);
            }
            Action::Unload { instance } => self.start_unloading(inner, instance),
            Action::Grant { waiter, granted } => return self.grant(inner, waiter, granted),
            Action::Fail { waiter, error } => return Some(inner.waiting.fail(waiter, error)),
            Action::WaitingForRoom { waiter } => inner.waiting.tell(waiter, Event::WaitingForRoom),
        }
        None
    }

    fn grant(
        self: &Arc<Self>,
        inner: &mut Inner,
        waiter: WaiterId,
        granted: Granted,
    ) -> Option<Delivery> {
        let owner = Arc::clone(self);
        Some(match granted {
            Granted::Lease(lease, instance) => {
                let model = inner.resident.get(&instance)?.user();
                let connection = inner.scheduler.leases().get(lease)?.connection;
                let held = HeldLease::new(owner, connection, lease, model);
                inner.waiting.grant(waiter, held)
            }
            Granted::Use(instance) => {
                let model = inner.resident.get(&instance)?.user();
                inner.waiting.grant(waiter, Use::new(owner, instance, model))
            }
            Granted::Preloaded { instance, was_loaded } => {
                let id = &inner.resident.get(&instance)?.info.id;
                let load_ms = inner.models.get(id)?.counters.load_ms.load(Ordering::Relaxed);
                inner.waiting.grant(waiter, Preloaded { was_loaded, load_ms })
            }
        })
    }
}

impl GrantOwner for Registry {
    fn end_use(self: Arc<Self>, instance: InstanceId) {
        self.change(|inner| inner.scheduler.end_use(instance, Instant::now()));
    }

    fn end_lease(self: Arc<Self>, connection: ConnectionId, lease: LeaseId) {
        // A lease that is not held has ended with its connection.
        let _ = self.change(|inner| inner.scheduler.release(connection, lease, Instant::now()));
    }
}

impl Inner {
    /// Tells the waiters for a model of an event.
    pub(super) fn tell(&self, model: &ModelId, event: &Event) {
        for waiter in self.scheduler.waiters_of(model) {
            self.waiting.tell(waiter, event.clone());
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("loaders", &self.loaders).finish_non_exhaustive()
    }
}
