//! The models of this daemon: does what the [`Scheduler`] decides, and tells it what came of it.
//!
//! One lock covers the decisions and what is in memory; it is never held while anything is read,
//! loaded, freed or answered. Loads and unloads run on threads of their own, so a client that leaves
//! while it waits stops nothing, and a slow one holds up no other.

use crate::ground::memory;
use crate::ground::sync::lock;
use crate::models::devices::Machine;
use crate::models::lease::{ConnectionId, LeaseError};
use crate::models::loaded::{LoadedModel, ModelSlot, Place};
use crate::models::loader::{LoadFailure, Loaders, Prepared};
use crate::models::scheduler::{
    Action, Change, Device, DeviceFigures, Failed, Granted, InstanceId, LeaseUse, ModelPolicy,
    Policy, Scheduler, WaitError, WaiterId, Want,
};

use crate::request::failure::RequestError;
use crate::settings::{DeviceChoice, ModelSettings, Settings};
use emberd_protocol::{Decision, Event, Freed, LeaseId, ModelId, Preloaded};
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// How long an unload waits for those that still look at the model (a status, an answer on its way).
const LAST_LOOKS: Duration = Duration::from_secs(10);

/// The keeper of time looks at least this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(24 * 60 * 60);

/// Where news of a load go.
pub(crate) type Events = mpsc::UnboundedSender<Event>;

/// All models, by id.
pub(crate) struct Registry {
    inner: Mutex<Inner>,
    loaders: Loaders,
    machine: Machine,
    cpu_workers: usize,
    /// For fetching, which waits on the network.
    runtime: OnceLock<Handle>,
    /// Deadlines may have changed.
    changed: Notify,
    /// Counts copies that have left the memory.
    unloaded: watch::Sender<u64>,
}

struct Inner {
    scheduler: Scheduler,
    /// When the keeper of time wakes by itself.
    wakes_at: Instant,
    models: BTreeMap<ModelId, Arc<ModelSlot>>,
    resident: HashMap<InstanceId, Arc<LoadedModel>>,
    /// The files of models that are about to be loaded.
    prepared: HashMap<ModelId, Prepared>,
    waiting: HashMap<WaiterId, Pending>,
}

struct Pending {
    sender: oneshot::Sender<Answer>,
    events: Option<Events>,
}

type Answer = Result<Held, WaitError>;

/// What a waiter gets. Dropped unclaimed, it is given back.
#[derive(Debug)]
enum Held {
    Lease(HeldLease),
    Use(Use),
    Preloaded { was_loaded: bool },
}

/// A model for one request; it stays in memory until this is dropped.
#[derive(Debug)]
pub(crate) struct Use {
    registry: Arc<Registry>,
    copy: InstanceId,
    /// The model.
    pub(crate) model: Arc<LoadedModel>,
}

impl Drop for Use {
    fn drop(&mut self) {
        self.registry.change(|inner| inner.scheduler.end_use(self.copy, Instant::now()));
    }
}

/// A lease that was just granted; released when dropped, unless it is kept.
#[derive(Debug)]
pub(crate) struct HeldLease {
    registry: Arc<Registry>,
    connection: ConnectionId,
    lease: LeaseId,
    is_kept: bool,
    /// Its model.
    pub(crate) model: Arc<LoadedModel>,
}

impl HeldLease {
    /// From now on the connection releases it.
    pub(crate) fn keep(mut self) -> LeaseId {
        self.is_kept = true;
        self.lease
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        if !self.is_kept {
            // Gone with its connection already: the same.
            let _ = self.registry.release(self.connection, self.lease);
        }
    }
}

/// Somebody in the queue; leaves it when dropped.
struct InQueue {
    registry: Arc<Registry>,
    id: WaiterId,
    receiver: oneshot::Receiver<Answer>,
}

impl Drop for InQueue {
    fn drop(&mut self) {
        self.registry.change(|inner| {
            if inner.waiting.remove(&self.id).is_some() {
                inner.scheduler.leave(self.id, Instant::now());
            }
        });
    }
}

impl Registry {
    /// The models of the settings, none of them loaded.
    #[must_use]
    pub(crate) fn new(settings: &Settings, loaders: Loaders) -> Arc<Self> {
        let machine = Machine::new(settings);
        let scheduler = Scheduler::new(policy(settings), policies(settings), machine.ask());
        let slot = |(id, model): (&ModelId, &ModelSettings)| {
            (id.clone(), Arc::new(ModelSlot::new(id.clone(), model.clone())))
        };
        let inner = Inner {
            scheduler,
            wakes_at: Instant::now(),
            models: settings.models.iter().map(slot).collect(),
            resident: HashMap::new(),
            prepared: HashMap::new(),
            waiting: HashMap::new(),
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            loaders,
            machine,
            cpu_workers: settings.effective_cpu_workers(),
            runtime: OnceLock::new(),
            changed: Notify::new(),
            unloaded: watch::Sender::new(0),
        })
    }

    /// A model by id.
    #[must_use]
    pub(crate) fn get(&self, id: &ModelId) -> Option<Arc<ModelSlot>> {
        self.inner().models.get(id).cloned()
    }

    /// All of them, ordered by id.
    #[must_use]
    pub(crate) fn slots(&self) -> Vec<Arc<ModelSlot>> {
        self.inner().models.values().map(Arc::clone).collect()
    }

    /// A lease, with the model that it holds.
    ///
    /// # Errors
    /// When the model cannot be loaded, or the connection holds too many leases.
    pub(crate) async fn lease(
        self: &Arc<Self>,
        connection: ConnectionId,
        model: &ModelId,
        events: Option<Events>,
    ) -> Result<HeldLease, RequestError> {
        match self.wait(model, Want::Lease(connection), events).await? {
            Held::Lease(lease) => Ok(lease),
            _ => Err(RequestError::Defect("another thing was granted than a lease")),
        }
    }

    /// A model for one request.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub(crate) async fn use_model(self: &Arc<Self>, model: &ModelId) -> Result<Use, RequestError> {
        match self.wait(model, Want::Use, None).await? {
            Held::Use(using) => Ok(using),
            _ => Err(RequestError::Defect("another thing was granted than a model")),
        }
    }

    /// The model of a lease for one request. It may have left the memory, where leases do not hold.
    ///
    /// # Errors
    /// When the lease is not this connection's, or the model cannot be loaded again.
    pub(crate) async fn use_lease(
        self: &Arc<Self>,
        connection: ConnectionId,
        lease: LeaseId,
    ) -> Result<Use, RequestError> {
        let (model, waiting) = {
            let mut inner = self.inner();
            let model = inner.scheduler.leases().model_of(connection, lease)?.clone();
            match inner.scheduler.use_lease(connection, lease, Instant::now())? {
                LeaseUse::Now(copy) => {
                    let resident = inner.resident.get(&copy).map(Arc::clone);
                    drop(inner);
                    let model = resident.ok_or(RequestError::Defect("a copy without a model"))?;
                    return Ok(Use { registry: Arc::clone(self), copy, model });
                }
                LeaseUse::Wait(id) => (model, self.enqueue(&mut inner, id, None)),
            }
        };
        self.act();
        match self.granted(waiting, &model).await? {
            Held::Use(using) => Ok(using),
            _ => Err(RequestError::Defect("another thing was granted than a model")),
        }
    }

    /// Brings a model into memory.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub(crate) async fn preload(
        self: &Arc<Self>,
        slot: &ModelSlot,
        events: Option<Events>,
    ) -> Result<Preloaded, RequestError> {
        match self.wait(&slot.id, Want::Preload, events).await? {
            Held::Preloaded { was_loaded } => {
                Ok(Preloaded { was_loaded, load_ms: slot.counters.load_ms.load(Ordering::Relaxed) })
            }
            _ => Err(RequestError::Defect("another thing was granted than a preload")),
        }
    }

    /// Ends a lease.
    ///
    /// # Errors
    /// When it is not this connection's, or no longer alive.
    pub(crate) fn release(
        self: &Arc<Self>,
        connection: ConnectionId,
        lease: LeaseId,
    ) -> Result<(), LeaseError> {
        self.change(|inner| inner.scheduler.release(connection, lease, Instant::now()))
    }

    /// Ends all leases of a connection.
    pub(crate) fn end_connection(self: &Arc<Self>, connection: ConnectionId) -> usize {
        self.change(|inner| inner.scheduler.end_connection(connection, Instant::now()))
    }

    /// Takes a model out of memory, when its running work is done.
    ///
    /// # Errors
    /// When it is held.
    pub(crate) async fn unload(self: &Arc<Self>, model: &ModelId) -> Result<Freed, RequestError> {
        let leaving = self
            .change(|inner| {
                let copies = inner.scheduler.unload(model, Instant::now())?;
                Ok(inner.leaving(copies))
            })
            .map_err(|source| RequestError::Unload { model: model.clone(), source })?;
        Ok(self.freed(leaving).await)
    }

    /// Takes all models out of memory that nobody holds or uses.
    pub(crate) async fn cleanup(self: &Arc<Self>) -> Freed {
        let leaving = self.change(|inner| {
            let copies = inner.scheduler.cleanup(Instant::now());
            inner.leaving(copies)
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
    /// When its files are not there or cannot be used.
    pub(crate) async fn plan(
        self: &Arc<Self>,
        slot: &Arc<ModelSlot>,
    ) -> Result<Decision, RequestError> {
        let (registry, slot, model) = (Arc::clone(self), Arc::clone(slot), slot.id.clone());
        let planned = tokio::task::spawn_blocking(move || {
            let prepared = registry.prepare(&slot, false)?;
            registry.refresh_devices();
            Ok(registry.inner().scheduler.plan(&slot.id, prepared.need))
        });
        match planned.await {
            Ok(Ok(Some(decision))) => Ok(decision),
            Ok(Ok(None)) | Err(_) => Err(RequestError::Defect("a plan could not be made")),
            Ok(Err(source)) => Err(RequestError::Load { model, source, retry_in: None }),
        }
    }

    /// Puts other settings into force: the rules, new models, and those of models that are not
    /// loaded.
    pub(crate) fn reconfigure(self: &Arc<Self>, settings: &Settings) {
        self.change(|inner| {
            let mut changes = Vec::new();
            for ((id, model), (_, rule)) in settings.models.iter().zip(policies(settings)) {
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
            // GPUs are to be looked for, which takes a while. Where no thread is to be had the next
            // load does it.
            let registry = Arc::clone(self);
            let _ = Builder::new().name("devices".into()).spawn(move || registry.refresh_devices());
        }
    }

    /// Whether a model is in memory or on its way there, so that its new settings count later.
    #[must_use]
    pub(crate) fn is_begun(&self, model: &ModelId) -> bool {
        let inner = self.inner();
        inner.scheduler.is_preparing(model)
            || inner.scheduler.copies().any(|(_, copy)| copy.model == *model)
    }

    /// What the status tells of a model: its copies, the last failure, and whether it is on its way.
    #[must_use]
    pub(crate) fn seen(&self, model: &ModelId) -> Seen {
        let inner = self.inner();
        let mut seen = Seen {
            copies: Vec::new(),
            failed: inner.scheduler.failed(model).cloned(),
            is_preparing: inner.scheduler.is_preparing(model),
            leases: inner.scheduler.leases().usage(model).leases,
            last_used: inner.scheduler.leases().usage(model).last_used,
            unload_at: None,
        };
        for (id, copy) in inner.scheduler.copies().filter(|(_, copy)| copy.model == *model) {
            seen.unload_at = seen.unload_at.or(inner.scheduler.unload_at(copy));
            seen.copies.push((copy.clone(), inner.resident.get(&id).map(Arc::clone)));
        }
        seen
    }

    /// The leases, and the devices with what our models take of them.
    #[must_use]
    pub(crate) fn overview(&self) -> Overview {
        let inner = self.inner();
        let leases = inner.scheduler.leases().iter().map(|(id, lease)| (id, lease.clone()));
        let used = |device: Device| {
            inner.scheduler.copies().filter(|(_, c)| c.device == device).map(|(_, c)| c.bytes).sum()
        };
        Overview {
            leases: leases.collect(),
            devices: inner
                .scheduler
                .devices()
                .iter()
                .map(|figures| (figures.clone(), used(figures.device)))
                .collect(),
        }
    }

    /// Runs what time brings about; never ends.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        // The first one to be set is the one that is meant.
        let _ = self.runtime.set(Handle::current());
        loop {
            let wake = {
                let mut inner = self.inner();
                let far = Instant::now() + LONGEST_SLEEP;
                inner.wakes_at = inner.scheduler.next_deadline().unwrap_or(far).min(far);
                inner.wakes_at
            };
            tokio::select! {
                () = tokio::time::sleep_until(wake.into()) => {
                    self.change(|inner| inner.scheduler.tick(Instant::now()));
                }
                () = self.changed.notified() => {}
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Changes something, and does what follows from it.
    fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = change(&mut self.inner());
        self.act();
        result
    }

    fn enqueue(
        self: &Arc<Self>,
        inner: &mut Inner,
        id: WaiterId,
        events: Option<Events>,
    ) -> InQueue {
        let (sender, receiver) = oneshot::channel();
        inner.waiting.insert(id, Pending { sender, events });
        InQueue { registry: Arc::clone(self), id, receiver }
    }

    async fn wait(
        self: &Arc<Self>,
        model: &ModelId,
        want: Want,
        events: Option<Events>,
    ) -> Result<Held, RequestError> {
        let waiting = {
            let mut inner = self.inner();
            let id = inner.scheduler.ask(model, want, Instant::now());
            self.enqueue(&mut inner, id, events)
        };
        self.act();
        self.granted(waiting, model).await
    }

    async fn granted(&self, mut waiting: InQueue, model: &ModelId) -> Result<Held, RequestError> {
        match (&mut waiting.receiver).await {
            Ok(Ok(held)) => Ok(held),
            Ok(Err(error)) => Err(RequestError::waiting(model, error)),
            Err(_) => Err(RequestError::Defect("a waiter was forgotten")),
        }
    }

    /// Does what was decided.
    fn act(self: &Arc<Self>) {
        // What is dropped or sent here may come back to this lock.
        let mut answers = Vec::new();
        let is_earlier = {
            let mut inner = self.inner();
            for action in inner.scheduler.take_actions() {
                match action {
                    Action::Prepare { model } => self.start_preparing(&mut inner, &model),
                    Action::Load { copy, model, device, bytes } => {
                        inner.tell(&model, &Event::Reading { need_bytes: bytes });
                        self.start_loading(&mut inner, copy, &model, device, bytes);
                    }
                    Action::Unload { copy } => self.start_unloading(&mut inner, copy),
                    Action::Grant { waiter, granted } => {
                        answers.extend(self.grant(&mut inner, waiter, granted));
                    }
                    Action::Fail { waiter, error } => {
                        let pending = inner.waiting.remove(&waiter);
                        answers.extend(pending.map(|pending| (pending.sender, Err(error))));
                    }
                    Action::WaitingForRoom { waiter } => {
                        if let Some(Pending { events: Some(events), .. }) =
                            inner.waiting.get(&waiter)
                        {
                            // Who has gone needs no news.
                            let _ = events.send(Event::WaitingForRoom);
                        }
                    }
                }
            }
            inner.scheduler.next_deadline().is_some_and(|deadline| deadline < inner.wakes_at)
        };
        for (sender, answer) in answers {
            // One that has gone gives back what it was granted by dropping it.
            let _ = sender.send(answer);
        }
        if is_earlier {
            self.changed.notify_one();
        }
    }

    fn grant(
        self: &Arc<Self>,
        inner: &mut Inner,
        waiter: WaiterId,
        granted: Granted,
    ) -> Option<(oneshot::Sender<Answer>, Answer)> {
        let (Granted::Lease(_, copy) | Granted::Use(copy) | Granted::Preloaded { copy, .. }) =
            granted;
        let model = inner.resident.get(&copy).map(Arc::clone)?;
        let registry = Arc::clone(self);
        let held = match granted {
            Granted::Lease(lease, _) => {
                let of = inner.scheduler.leases().iter().find(|(id, _)| *id == lease);
                let connection = of.map(|(_, lease)| lease.connection)?;
                Held::Lease(HeldLease { registry, connection, lease, is_kept: false, model })
            }
            Granted::Use(_) => Held::Use(Use { registry, copy, model }),
            Granted::Preloaded { was_loaded, .. } => Held::Preloaded { was_loaded },
        };
        match inner.waiting.remove(&waiter) {
            Some(pending) => Some((pending.sender, Ok(held))),
            None => {
                // It left in this very moment. A closed channel gives it back outside of the lock.
                let (closed, _) = oneshot::channel();
                Some((closed, Ok(held)))
            }
        }
    }

    // ---- threads

    fn start_preparing(self: &Arc<Self>, inner: &mut Inner, model: &ModelId) {
        let Some(slot) = inner.models.get(model).map(Arc::clone) else { return };
        let registry = Arc::clone(self);
        let work = move || {
            let result = catch_unwind(AssertUnwindSafe(|| registry.prepare(&slot, true)));
            let result = result.unwrap_or_else(|_| Err(Arc::new(LoadFailure::Panicked)));
            if let Err(cause) = &result {
                let cause = crate::request::failure::chain(&**cause);
                tracing::warn!(model = %slot.id, error = cause, "cannot be loaded");
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
            self.again();
        }
    }

    /// Finds a model's files, fetched from the hub if need be, and computes what it takes.
    fn prepare(
        self: &Arc<Self>,
        slot: &ModelSlot,
        may_fetch: bool,
    ) -> Result<Prepared, Arc<LoadFailure>> {
        let tell = |event: Event| self.inner().tell(&slot.id, &event);
        self.loaders
            .prepare(slot.settings(), self.cpu_workers, self.runtime.get(), may_fetch, &tell)
            .map_err(Arc::new)
    }

    fn start_loading(
        self: &Arc<Self>,
        inner: &mut Inner,
        copy: InstanceId,
        model: &ModelId,
        device: Device,
        bytes: u64,
    ) {
        let Some(slot) = inner.models.get(model).map(Arc::clone) else { return };
        // Of the preparation that the decision to load relied on, not of one that ends meanwhile.
        let prepared = inner.prepared.get(model).cloned();
        let registry = Arc::clone(self);
        let work = move || {
            let load = || {
                let tensors =
                    registry.machine.tensors(device).ok_or(LoadFailure::NoDevice(device))?;
                let place = Place { device, tensors };
                let prepared = prepared.as_ref().ok_or(LoadFailure::NoSource)?;
                slot.load(&registry.loaders, prepared, &place, registry.cpu_workers)
            };
            let result = catch_unwind(AssertUnwindSafe(load));
            let result = result.unwrap_or_else(|_| Err(LoadFailure::Panicked));
            if let Err(cause) = &result {
                let cause = crate::request::failure::chain(cause);
                tracing::warn!(model = %slot.id, error = cause, "load failed");
                memory::give_back();
                registry.machine.give_back(device);
            }
            registry.refresh_devices();
            registry.change(|inner| {
                let result = result.map(|loaded| {
                    let told = loaded.info.weight_bytes;
                    inner.resident.insert(copy, Arc::new(loaded));
                    bytes.max(told)
                });
                inner.scheduler.loaded(copy, result.map_err(Arc::new), Instant::now());
            });
        };
        if let Err(cause) = Builder::new().name(format!("load:{model}")).spawn(work) {
            let cause = Arc::new(LoadFailure::Threads(cause));
            inner.scheduler.loaded(copy, Err(cause), Instant::now());
            self.again();
        }
    }

    fn start_unloading(self: &Arc<Self>, inner: &mut Inner, copy: InstanceId) {
        let Some(loaded) = inner.resident.remove(&copy) else {
            inner.scheduler.unloaded(copy, Instant::now());
            self.unloaded.send_modify(|count| *count += 1);
            return self.again();
        };
        let model = loaded.info.id.clone();
        let device = loaded.device;
        let slot = inner.models.get(&model).map(Arc::clone);
        let registry = Arc::clone(self);
        // In a cell, so that the model can be freed here where no thread is to be had.
        let loaded = Arc::new(Mutex::new(Some(loaded)));
        let in_thread = Arc::clone(&loaded);
        let work = move || {
            if let Some(loaded) = lock(&in_thread).take() {
                free(loaded);
            }
            memory::give_back();
            registry.machine.give_back(device);
            if let Some(slot) = slot {
                slot.counters.unloads.fetch_add(1, Ordering::Relaxed);
                tracing::info!(model = %slot.id, "model unloaded");
            }
            registry.refresh_devices();
            registry.change(|inner| inner.scheduler.unloaded(copy, Instant::now()));
            registry.unloaded.send_modify(|count| *count += 1);
        };
        if Builder::new().name(format!("unload:{model}")).spawn(work).is_err() {
            // Its workers end by themselves once nobody looks at it.
            drop(lock(&loaded).take());
            inner.scheduler.unloaded(copy, Instant::now());
            self.unloaded.send_modify(|count| *count += 1);
            self.again();
        }
    }

    /// Something was decided while actions were done: they are done by a task, since the lock that
    /// `act` takes is held here.
    fn again(self: &Arc<Self>) {
        if let Some(runtime) = self.runtime.get() {
            let registry = Arc::clone(self);
            runtime.spawn(async move { registry.act() });
        }
    }

    fn refresh_devices(self: &Arc<Self>) {
        // A device answers slowly: it is asked before the lock is taken.
        let devices = self.machine.ask();
        self.change(|inner| inner.scheduler.set_devices(devices, Instant::now()));
    }

    async fn freed(&self, leaving: Leaving) -> Freed {
        let Leaving { copies, freed } = leaving;
        let mut unloaded = self.unloaded.subscribe();
        while self.inner().scheduler.copies().any(|(id, _)| copies.contains(&id)) {
            // The sender lives as long as this.
            if unloaded.changed().await.is_err() {
                break;
            }
        }
        freed
    }
}

impl Inner {
    /// Copies that were told to leave, with what that will free. To be asked before the lock is
    /// given back: the first may have left a moment later.
    fn leaving(&self, copies: Vec<InstanceId>) -> Leaving {
        let mut freed = Freed::default();
        for (_, copy) in self.scheduler.copies().filter(|(id, _)| copies.contains(id)) {
            freed.bytes += copy.bytes;
            if !freed.models.contains(&copy.model) {
                freed.models.push(copy.model.clone());
            }
        }
        Leaving { copies, freed }
    }

    /// News for all who wait for a model and want to hear.
    fn tell(&self, model: &ModelId, event: &Event) {
        for waiter in self.scheduler.waiters_of(model) {
            if let Some(Pending { events: Some(events), .. }) = self.waiting.get(&waiter) {
                // Who has gone needs no news.
                let _ = events.send(event.clone());
            }
        }
    }
}

/// Copies on their way out.
struct Leaving {
    copies: Vec<InstanceId>,
    freed: Freed,
}

/// Ends the workers and frees the weights, when nobody looks at them any more.
fn free(mut loaded: Arc<LoadedModel>) {
    let deadline = Instant::now() + LAST_LOOKS;
    loop {
        match Arc::try_unwrap(loaded) {
            Ok(model) => return drop(model),
            Err(shared) if Instant::now() < deadline => loaded = shared,
            // The last one to look frees it.
            Err(_) => return,
        }
        sleep(Duration::from_millis(1));
    }
}

/// A model at one moment.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Its copies, with the model where it is in memory.
    pub(crate) copies: Vec<(crate::models::scheduler::Copy, Option<Arc<LoadedModel>>)>,
    /// The last load, if it failed.
    pub(crate) failed: Option<Failed>,
    /// Whether its files are being looked for.
    pub(crate) is_preparing: bool,
    /// Leases on it.
    pub(crate) leases: usize,
    /// The last grant, use or release.
    pub(crate) last_used: Option<Instant>,
    /// When it is unloaded if nobody comes.
    pub(crate) unload_at: Option<Instant>,
}

/// What is held, and where.
#[derive(Debug)]
pub(crate) struct Overview {
    /// All leases.
    pub(crate) leases: Vec<(LeaseId, crate::models::lease::Lease)>,
    /// The devices, and what our models take there.
    pub(crate) devices: Vec<(DeviceFigures, u64)>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("loaders", &self.loaders).finish_non_exhaustive()
    }
}

fn policy(settings: &Settings) -> Policy {
    Policy {
        sharing: settings.sharing.enabled,
        max_shared_models: settings.sharing.max_shared_models,
        unload_after: settings.sharing.unload_after,
        reference_counting: settings.sharing.reference_counting,
        device_preference: settings.device_preference,
        max_leases: settings.limits.leases as usize,
    }
}

fn policies(settings: &Settings) -> impl Iterator<Item = (ModelId, ModelPolicy)> {
    settings.models.iter().map(|(id, model)| {
        // What is built in computes on the CPU, and answers whatever the other models wish for.
        let device = if model.device == DeviceChoice::Auto && model.is_builtin() {
            DeviceChoice::Cpu
        } else {
            model.device
        };
        (id.clone(), ModelPolicy { is_shared: model.shared, device })
    })
}
