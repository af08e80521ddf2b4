//! The daemon as a whole: what all connections share, the door, and the end.

use crate::cache::EmbeddingCache;
use crate::connection::split;
use crate::engine::model::EmbeddingModel;
use crate::lease::{ConnectionId, LeaseTable};
use crate::loader::{CustomError, Loaders};
use crate::registry::Registry;
use crate::segment::{DEFAULT_SPARES, SegmentError, Spares, TotalCredit, backend};
use crate::session::{self, Connection, refuse};
use crate::settings::{ModelSettings, Settings};
use crate::sync::lock;
use emberd_protocol::{ModelId, RefusalReason, Status};
use interprocess::local_socket::tokio::{Listener, Stream};
use interprocess::local_socket::traits::tokio::Listener as _;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

/// A pause after the system had no descriptor or memory for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often rows that are too old are given up. Between two such moments they only take memory.
const PURGE_EVERY: Duration = Duration::from_secs(30);

/// What every connection reaches.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) registry: Registry,
    pub(crate) leases: Mutex<LeaseTable>,
    pub(crate) connections: Mutex<BTreeMap<ConnectionId, Arc<Connection>>>,
    pub(crate) spares: Arc<Spares>,
    pub(crate) credit: Arc<TotalCredit>,
    /// Rows of all models; `None` where the settings want none.
    pub(crate) cache: Option<Arc<EmbeddingCache>>,
    pub(crate) started: Instant,
    /// Requests answered.
    pub(crate) requests: AtomicU64,
    /// Whether the daemon is stopping.
    pub(crate) draining: watch::Sender<bool>,
}

/// Puts a daemon together.
#[derive(Debug)]
pub struct DaemonBuilder {
    settings: Settings,
    loaders: Loaders,
}

/// A daemon that is ready to take connections.
pub struct Daemon {
    shared: Arc<Shared>,
}

impl DaemonBuilder {
    /// Registers a model type of the program's own: settings with this `type` are loaded by it.
    #[must_use]
    pub fn model_type<F>(mut self, name: impl Into<String>, loader: F) -> Self
    where
        F: Fn(&ModelId, &ModelSettings) -> Result<Arc<dyn EmbeddingModel>, CustomError>
            + Send
            + Sync
            + 'static,
    {
        self.loaders.register(name, loader);
        self
    }

    /// The daemon. Loads no model: the first lease does.
    ///
    /// # Errors
    /// When the system gives no thread to make shared memory ahead of its use.
    pub fn build(self) -> Result<Daemon, SegmentError> {
        let segments = &self.settings.segments;
        // Whatever this one uses: the dead one may have used names.
        let swept = crate::segment::sweep_leftovers();
        tracing::debug!(swept, "segments of dead daemons were removed");
        let cache = &self.settings.cache;
        let cache = cache
            .enabled
            .then(|| Arc::new(EmbeddingCache::open(cache, Instant::now(), SystemTime::now())));
        let shared = Shared {
            cache,
            registry: Registry::new(&self.settings, self.loaders),
            leases: Mutex::default(),
            connections: Mutex::default(),
            spares: Spares::new(backend(segments.backend), DEFAULT_SPARES)?,
            credit: TotalCredit::new(segments.total_bytes),
            started: Instant::now(),
            requests: AtomicU64::new(0),
            draining: watch::Sender::new(false),
            settings: self.settings,
        };
        Ok(Daemon { shared: Arc::new(shared) })
    }
}

impl Daemon {
    /// Starts to put a daemon together.
    #[must_use]
    pub fn builder(settings: Settings) -> DaemonBuilder {
        DaemonBuilder { settings, loaders: Loaders::default() }
    }

    /// What the daemon holds and does.
    #[must_use]
    pub fn status(&self) -> Status {
        crate::status::of(&self.shared)
    }

    /// Takes connections until `shutdown` ends, then drains: no new connection or work is taken,
    /// what runs may end (for at most `limits.drain_seconds`), and all are sent home.
    ///
    /// Must be called within a tokio runtime with time and I/O. Whether the listener's path is
    /// removed is the listener's business.
    pub async fn run(&self, listener: Listener, shutdown: impl Future<Output = ()>) {
        let mut sessions = JoinSet::new();
        let permits = Arc::new(Semaphore::new(self.shared.settings.limits.connections));
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
                    if let Some(cache) = &self.shared.cache {
                        cache.purge(Instant::now());
                    }
                }
                accepted = listener.accept() => match accepted {
                    Ok(stream) => {
                        last_id += 1;
                        let (shared, id) = (Arc::clone(&self.shared), ConnectionId(last_id));
                        match Arc::clone(&permits).try_acquire_owned() {
                            Ok(permit) => sessions.spawn(async move {
                                session::serve(shared, stream, id).await;
                                drop(permit);
                            }),
                            Err(_) => sessions.spawn(turn_away(stream)),
                        };
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
        if timeout(self.shared.settings.limits.drain, ended).await.is_err() {
            tracing::warn!(connections = sessions.len(), "work did not end in time: cut off");
        }
        sessions.shutdown().await;
        debug_assert!(lock(&self.shared.connections).is_empty(), "sessions forget themselves");
    }
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daemon").field("settings", &self.shared.settings).finish_non_exhaustive()
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
