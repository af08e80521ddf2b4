//! The daemon as a whole: what all connections share, the door, and the end.

use crate::batching::row_job::RowFlights;
use crate::cache::{Cleared, EmbeddingCache};
use crate::connection::frames::split;
use crate::connection::session;
use crate::connection::session::{Connection, refuse};
use crate::ground::connection_id::ConnectionId;
use crate::ground::memory;
use crate::ground::sync::lock;
use crate::hub::HubSettings;
use crate::models::load_failure::CustomError;
use crate::models::loader::Loaders;
use crate::models::registry::Registry;
use crate::request::failure::RequestError;
use crate::request::latency::Latencies;
use crate::segment::{DEFAULT_SPARES, SegmentError, Spares, TotalCredit, backend};
use crate::settings::reload;
use crate::settings::{ModelSettings, Settings};
use arc_swap::ArcSwap;
use emberd_engine::{EmbeddingModel, ModelParts};
use emberd_protocol::{CacheCleared, ModelId, RefusalReason, Reloaded, Status};
use interprocess::local_socket::tokio::{Listener, Stream};
use interprocess::local_socket::traits::tokio::Listener as _;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{interval, sleep, timeout};

/// A pause after the system had no descriptor or memory for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often rows that are too old are given up. Between two such moments they only take memory.
const PURGE_EVERY: Duration = Duration::from_secs(30);

/// What every connection reaches.
pub(crate) struct Shared {
    settings: ArcSwap<Settings>,
    /// Where settings are read from again.
    reader: Option<Box<SettingsReader>>,
    /// Why the last reading changed nothing.
    pub(crate) reload_error: Mutex<Option<String>>,
    /// One reload at a time: each compares what it has read with what is in force.
    reloading: tokio::sync::Mutex<()>,
    pub(crate) latencies: Latencies,
    pub(crate) registry: Arc<Registry>,
    pub(crate) connections: Mutex<BTreeMap<ConnectionId, Arc<Connection>>>,
    pub(crate) spares: Arc<Spares>,
    pub(crate) credit: Arc<TotalCredit>,
    /// Results that go inline, in all connections together.
    pub(crate) inline_total: Arc<TotalCredit>,
    /// Rows of all models. Empty where the settings want none.
    pub(crate) cache: Arc<EmbeddingCache>,
    /// Rows that requests want now and that are not in the cache.
    pub(crate) flights: Arc<RowFlights>,
    pub(crate) started: Instant,
    /// Requests answered.
    pub(crate) requests: AtomicU64,
    /// Connections that are open.
    open: AtomicUsize,
    /// Whether the daemon is stopping.
    pub(crate) draining: watch::Sender<bool>,
}

/// Reads the settings again.
type SettingsReader = dyn Fn() -> Result<Settings, String> + Send + Sync;

impl Shared {
    /// The settings that are in force.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Reads the settings again, and puts what can change into force. A fault in them changes
    /// nothing.
    ///
    /// # Errors
    /// When they cannot be read, or there is nothing to read them from.
    pub(crate) async fn reload(self: &Arc<Self>) -> Result<Reloaded, RequestError> {
        let _turn = self.reloading.lock().await;
        let shared = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || match &shared.reader {
            Some(read) => read(),
            None => Err("this daemon was not given a file to read them from".to_owned()),
        });
        let read = read.await.map_err(|_| RequestError::Defect("reading settings panicked"))?;
        *lock(&self.reload_error) = read.as_ref().err().cloned();
        let new = read.map_err(|error| {
            tracing::error!(error, "the settings were not changed");
            RequestError::Reload(error)
        })?;
        let (settings, reloaded) =
            reload::merge(&self.settings(), new, |id| self.registry.is_begun(id));
        self.registry.reconfigure(&settings);
        self.credit.set_limit(settings.segments.total_bytes);
        self.inline_total.set_limit(settings.segments.total_bytes);
        let cache = &settings.cache;
        self.cache.set_limits(cache.max_entries, cache.ttl, Instant::now());
        if !cache.enabled {
            self.cache.forget();
        }
        self.settings.store(Arc::new(settings));
        for change in &reloaded.changed {
            tracing::info!(key = change.key, value = change.value, "setting changed");
        }
        for change in &reloaded.unchanged {
            tracing::warn!(key = change.key, effect = change.effect, "setting not changed");
        }
        Ok(reloaded)
    }

    /// Counts one more connection, if there is room for it.
    fn enter(&self) -> bool {
        let limit = self.settings().limits.connections;
        let enter = |open: usize| (open < limit).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter).is_ok()
    }

    /// Takes all rows out of the embedding cache, and out of its file.
    ///
    /// # Errors
    /// When the file cannot be emptied.
    pub(crate) async fn clear_cache(self: &Arc<Self>) -> Result<CacheCleared, RequestError> {
        let shared = Arc::clone(self);
        let cleared = tokio::task::spawn_blocking(move || {
            let cleared = shared.cache.clear();
            memory::give_back();
            cleared
        });
        let cleared = cleared.await.map_err(|_| RequestError::Defect("clearing panicked"))?;
        let Cleared { entries, bytes } = cleared.map_err(RequestError::Cache)?;
        Ok(CacheCleared { entries: entries as u64, bytes: bytes as u64 })
    }
}

/// Puts a daemon together.
pub struct DaemonBuilder {
    settings: Settings,
    loaders: Loaders,
    reader: Option<Box<SettingsReader>>,
}

impl fmt::Debug for DaemonBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DaemonBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A daemon that is ready to take connections.
pub struct Daemon {
    shared: Arc<Shared>,
}

impl DaemonBuilder {
    /// Registers a model type of the program's own: settings with this `type` are loaded by it.
    #[must_use]
    pub fn model_type<F>(self, name: impl Into<String>, loader: F) -> Self
    where
        F: Fn(&ModelId, &ModelSettings) -> Result<Arc<dyn EmbeddingModel>, CustomError>
            + Send
            + Sync
            + 'static,
    {
        self.model_type_of_parts(name, move |id, settings| {
            Ok(ModelParts { embed: Some(loader(id, settings)?), ..ModelParts::default() })
        })
    }

    /// As [`DaemonBuilder::model_type`], for models that do other things than making rows, or more.
    #[must_use]
    pub fn model_type_of_parts<F>(mut self, name: impl Into<String>, loader: F) -> Self
    where
        F: Fn(&ModelId, &ModelSettings) -> Result<ModelParts, CustomError> + Send + Sync + 'static,
    {
        self.loaders.register(name, loader);
        self
    }

    /// The settings that it was begun with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Tells where models are fetched by name. Without it those that are named only cannot be
    /// loaded.
    #[must_use]
    pub fn hub(mut self, settings: HubSettings) -> Self {
        self.loaders.set_hub(settings);
        self
    }

    /// Tells how settings are read again, when a client or [`Daemon::reload`] asks for it. What
    /// it answers as an error is for people.
    #[must_use]
    pub fn settings_reader<F>(mut self, read: F) -> Self
    where
        F: Fn() -> Result<Settings, String> + Send + Sync + 'static,
    {
        self.reader = Some(Box::new(read));
        self
    }

    /// The daemon. Loads no model: the first lease does.
    ///
    /// # Errors
    /// When the system gives no thread to make shared memory ahead of its use.
    pub fn build(self) -> Result<Daemon, SegmentError> {
        memory::set_up();
        let segments = &self.settings.segments;
        // Whatever this one uses: the dead one may have used names.
        let swept = crate::segment::sweep_leftovers();
        tracing::debug!(swept, "segments of dead daemons were removed");
        let cache = EmbeddingCache::open(&self.settings.cache, Instant::now(), SystemTime::now());
        let cache = Arc::new(cache);
        let shared = Shared {
            flights: Arc::new(RowFlights::new(Arc::clone(&cache))),
            cache,
            registry: Registry::new(&self.settings, self.loaders),
            connections: Mutex::default(),
            spares: Spares::new(backend(segments.backend), DEFAULT_SPARES)?,
            credit: TotalCredit::new(segments.total_bytes),
            inline_total: TotalCredit::new(segments.total_bytes),
            started: Instant::now(),
            requests: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            draining: watch::Sender::new(false),
            latencies: Latencies::default(),
            reload_error: Mutex::default(),
            reloading: tokio::sync::Mutex::default(),
            reader: self.reader,
            settings: ArcSwap::from_pointee(self.settings),
        };
        Ok(Daemon { shared: Arc::new(shared) })
    }
}

impl Daemon {
    /// Starts to put a daemon together.
    #[must_use]
    pub fn builder(settings: Settings) -> DaemonBuilder {
        DaemonBuilder { settings, loaders: Loaders::default(), reader: None }
    }

    /// What the daemon holds and does.
    #[must_use]
    pub fn status(&self) -> Status {
        crate::request::status::of(&self.shared)
    }

    /// Reads the settings again, and puts what can change into force; answers what did and what
    /// did not. A fault in them changes nothing.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub async fn reload(&self) -> Result<Reloaded, String> {
        self.shared.reload().await.map_err(|error| error.to_string())
    }

    /// Takes connections until `shutdown` ends, then drains: no new connection or work is taken,
    /// what runs may end (for at most `limits.drain_seconds`), and all are sent home.
    ///
    /// Must be called within a tokio runtime with time and I/O. Whether the listener's path is
    /// removed is the listener's business.
    pub async fn run(&self, listener: Listener, shutdown: impl Future<Output = ()>) {
        let mut sessions = JoinSet::new();
        let time = tokio::spawn(Arc::clone(&self.shared.registry).keep_time());
        let _ends_with_this = AbortOnDrop(time.abort_handle());
        let mut shutdown = std::pin::pin!(shutdown);
        let mut last_id = 0;
        let mut purges = interval(PURGE_EVERY);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(ended) = sessions.join_next(), if !sessions.is_empty() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a session failed");
                    }
                }
                _ = purges.tick() => {
                    self.shared.cache.purge(Instant::now());
                }
                accepted = listener.accept() => match accepted {
                    Ok(stream) => {
                        last_id += 1;
                        let (shared, id) = (Arc::clone(&self.shared), ConnectionId(last_id));
                        if self.shared.enter() {
                            let entered = Entered(Arc::clone(&shared));
                            sessions.spawn(async move {
                                session::serve(shared, stream, id).await;
                                drop(entered);
                            });
                        } else {
                            sessions.spawn(turn_away(stream));
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        self.drain(sessions).await;
    }

    async fn drain(&self, mut sessions: JoinSet<()>) {
        tracing::info!(connections = sessions.len(), "stopping");
        self.shared.draining.send_replace(true);
        let ended = async { while sessions.join_next().await.is_some() {} };
        if timeout(self.shared.settings().limits.drain, ended).await.is_err() {
            tracing::warn!(connections = sessions.len(), "work did not end in time: cut off");
        }
        sessions.shutdown().await;
        debug_assert!(lock(&self.shared.connections).is_empty(), "sessions forget themselves");
    }
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daemon").field("settings", &self.shared.settings()).finish_non_exhaustive()
    }
}

/// A connection that is counted.
struct Entered(Arc<Shared>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells a client that there is no room for it, if it listens for a moment.
async fn turn_away(stream: Stream) {
    let (_reader, writer) = split(stream);
    let message = "the daemon has as many connections as it takes: try again later";
    let refusal = refuse(&writer, RefusalReason::TooManyConnections, message);
    // Best effort: the client is told, or finds the connection closed.
    let _ = timeout(ACCEPT_PAUSE, refusal).await;
}
