//! What all requests reach: the settings in force, the models, the cache, the memory for results,
//! and the clients that are connected.

use crate::batching::row_job::RowFlights;
use crate::cache::EmbeddingCache;
use crate::ground::sync::lock;
use crate::models::lease::ConnectionId;
use crate::models::registry::Registry;
use crate::request::caller::Caller;
use crate::request::latency::{Latencies, RequestKind};
use crate::request::reload::{ReloadError, SettingsReader};
use crate::segment::{InlineCredit, SegmentPool, Spares, TotalCredit};
use crate::settings::{Settings, reload};
use arc_swap::ArcSwap;
use emberd_protocol::{LatencyStatus, Reloaded, SegmentBackend};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The state of a daemon. Shared by everything that serves its connections.
pub(crate) struct DaemonState {
    started: Instant,
    settings: ArcSwap<Settings>,
    reader: Option<Box<SettingsReader>>,
    /// Why the last reload changed nothing.
    reload_error: Mutex<Option<String>>,
    /// One reload at a time: each compares what it has read with what is in force.
    reloading: tokio::sync::Mutex<()>,
    registry: Arc<Registry>,
    flights: Arc<RowFlights>,
    spares: Arc<Spares>,
    segment_credit: Arc<TotalCredit>,
    inline_credit: Arc<TotalCredit>,
    callers: Mutex<BTreeMap<ConnectionId, Arc<Caller>>>,
    answered: AtomicU64,
    latencies: Latencies,
    draining: watch::Sender<bool>,
}

/// What a state is made of.
pub(crate) struct StateParts {
    pub(crate) settings: Settings,
    /// `None`: the settings cannot be read again.
    pub(crate) reader: Option<Box<SettingsReader>>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) cache: EmbeddingCache,
    pub(crate) spares: Arc<Spares>,
}

/// A connection in the list of those that are served. Dropping it takes the connection off the list
/// and ends its leases.
pub(crate) struct Registration {
    state: Arc<DaemonState>,
    id: ConnectionId,
}

impl DaemonState {
    pub(crate) fn new(parts: StateParts) -> Self {
        let StateParts { settings, reader, registry, cache, spares } = parts;
        let total_bytes = settings.segments.total_bytes;
        Self {
            started: Instant::now(),
            settings: ArcSwap::from_pointee(settings),
            reader,
            reload_error: Mutex::default(),
            reloading: tokio::sync::Mutex::default(),
            registry,
            flights: Arc::new(RowFlights::new(Arc::new(cache))),
            spares,
            segment_credit: TotalCredit::new(total_bytes),
            inline_credit: TotalCredit::new(total_bytes),
            callers: Mutex::default(),
            answered: AtomicU64::new(0),
            latencies: Latencies::default(),
            draining: watch::Sender::new(false),
        }
    }

    /// The settings in force. They may be replaced at any time: a request asks once.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(crate) fn cache(&self) -> &EmbeddingCache {
        self.flights.cache()
    }

    /// The rows that are being computed, so that a text is computed once for all who want it.
    pub(crate) fn flights(&self) -> &Arc<RowFlights> {
        &self.flights
    }

    /// Reads the settings again and puts into force what can change while the daemon runs. A fault
    /// in them changes nothing.
    ///
    /// # Errors
    /// When they cannot be read, or nothing says how.
    pub(crate) async fn reload(self: &Arc<Self>) -> Result<Reloaded, ReloadError> {
        let _turn = self.reloading.lock().await;
        let state = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || match &state.reader {
            Some(read) => read().map_err(ReloadError::Read),
            None => Err(ReloadError::NoReader),
        });
        let read = read.await.unwrap_or(Err(ReloadError::Panicked));
        *lock(&self.reload_error) = read.as_ref().err().map(ToString::to_string);
        let new = read.inspect_err(|error| {
            tracing::error!(%error, "the settings were not changed");
        })?;
        let (settings, reloaded) =
            reload::merge(&self.settings(), new, |id| self.registry.is_loading_or_loaded(id));
        self.apply(settings);
        for change in &reloaded.changed {
            tracing::info!(key = change.key, value = change.value, "setting changed");
        }
        for change in &reloaded.unchanged {
            tracing::warn!(key = change.key, effect = change.effect, "setting not changed");
        }
        Ok(reloaded)
    }

    /// Memory to share with one connection.
    pub(crate) fn new_pool(&self) -> Arc<SegmentPool> {
        let credit_bytes = self.settings().segments.credit_bytes;
        let total = Arc::clone(&self.segment_credit);
        SegmentPool::new(Arc::clone(&self.spares), credit_bytes, total)
    }

    /// The bound on one connection's inline results.
    pub(crate) fn new_inline_credit(&self) -> InlineCredit {
        let credit_bytes = self.settings().segments.credit_bytes;
        InlineCredit::new(credit_bytes, Arc::clone(&self.inline_credit))
    }

    /// How segments are made. A reload does not change it.
    pub(crate) fn segment_backend(&self) -> SegmentBackend {
        self.spares.backend().kind()
    }

    /// The bytes of all segments of all connections.
    pub(crate) fn segment_credit(&self) -> &TotalCredit {
        &self.segment_credit
    }

    /// Adds a connection to those that are served.
    pub(crate) fn register(self: &Arc<Self>, caller: Arc<Caller>) -> Registration {
        let id = caller.id;
        lock(&self.callers).insert(id, caller);
        Registration { state: Arc::clone(self), id }
    }

    /// The connections that are served, ordered by id.
    pub(crate) fn callers(&self) -> Vec<Arc<Caller>> {
        lock(&self.callers).values().map(Arc::clone).collect()
    }

    /// Counts a request that is about to be answered, so that a client that has its answer finds it
    /// in the status.
    pub(crate) fn note_answer(&self, kind: RequestKind, took: Duration) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.latencies.note(kind, took);
    }

    /// Requests answered since the start.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// How long requests took, by kind.
    pub(crate) fn latencies(&self) -> Vec<LatencyStatus> {
        self.latencies.status()
    }

    /// How long the daemon has run.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Why the last reload changed nothing; `None` after one that succeeded.
    pub(crate) fn reload_error(&self) -> Option<String> {
        lock(&self.reload_error).clone()
    }

    /// From now on no new connection and no new work is accepted.
    pub(crate) fn drain(&self) {
        self.draining.send_replace(true);
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Sees the change when the daemon begins to stop.
    pub(crate) fn watch_draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    fn apply(self: &Arc<Self>, settings: Settings) {
        self.registry.reconfigure(&settings);
        self.segment_credit.set_limit(settings.segments.total_bytes);
        self.inline_credit.set_limit(settings.segments.total_bytes);
        let cache = &settings.cache;
        self.cache().set_limits(cache.max_entries, cache.ttl, Instant::now());
        if !cache.enabled {
            self.cache().forget();
        }
        self.settings.store(Arc::new(settings));
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        lock(&self.state.callers).remove(&self.id);
        let leases = self.state.registry.end_connection(self.id);
        tracing::debug!(connection = self.id.0, leases, "connection forgotten");
    }
}
