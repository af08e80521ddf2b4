//! The daemon as a whole: how it is built, how it accepts connections, and how it stops.

use crate::cache::EmbeddingCache;
use crate::connection::{serve, turn_away};
use crate::ground::memory;
use crate::hub::HubSettings;
use crate::models::lease::ConnectionId;
use crate::models::load_failure::CustomError;
use crate::models::loader::Loaders;
use crate::models::registry::Registry;
use crate::request::reload::SettingsReader;
use crate::request::state::{DaemonState, StateParts};
use crate::request::status::status;
use crate::segment::{DEFAULT_SPARES, SegmentError, Spares, backend};
use crate::settings::{ModelSettings, Settings};
use emberd_engine::{EmbeddingModel, ModelParts};
use emberd_protocol::{ModelId, Reloaded, Status};
use interprocess::local_socket::tokio::{Listener, Stream};
use interprocess::local_socket::traits::tokio::Listener as _;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{interval, sleep, timeout};

/// The pause after the system had no descriptor or memory for a new connection, and how long a client
/// may take to read that there is no room for it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often rows that are too old leave the embedding cache. Until then they only take memory.
const PURGE_EVERY: Duration = Duration::from_secs(30);

/// Builds a daemon.
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

/// A daemon that is ready to accept connections.
pub struct Daemon {
    state: Arc<DaemonState>,
    /// Connections that are open, those in the handshake included.
    open: Arc<AtomicUsize>,
}

impl DaemonBuilder {
    /// Registers a model type of the program's own. `loader` loads the models whose settings have
    /// this `type`.
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

    /// As [`DaemonBuilder::model_type`], for models that offer other methods than embedding, or
    /// several.
    #[must_use]
    pub fn model_type_of_parts<F>(mut self, name: impl Into<String>, loader: F) -> Self
    where
        F: Fn(&ModelId, &ModelSettings) -> Result<ModelParts, CustomError> + Send + Sync + 'static,
    {
        self.loaders.register(name, loader);
        self
    }

    /// The settings that the builder was started with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sets the hub that models are fetched from by name. Without it a model needs a local folder.
    #[must_use]
    pub fn hub(mut self, settings: HubSettings) -> Self {
        self.loaders.set_hub(settings);
        self
    }

    /// Sets the function that reads the settings again when a client or [`Daemon::reload`] asks for
    /// it. The text of its error goes to the client and into the status.
    #[must_use]
    pub fn settings_reader<F, E>(mut self, read: F) -> Self
    where
        F: Fn() -> Result<Settings, E> + Send + Sync + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.reader = Some(Box::new(move || read().map_err(Into::into)));
        self
    }

    /// Builds the daemon. It loads no model: the first lease does.
    ///
    /// # Errors
    /// When the system gives no thread to make shared memory ahead of its use.
    pub fn build(self) -> Result<Daemon, SegmentError> {
        memory::set_up();
        // Whichever backend this daemon uses: the dead one may have used names.
        let swept = crate::segment::sweep_leftovers();
        tracing::debug!(swept, "removed segments of dead daemons");
        let Self { settings, loaders, reader } = self;
        let spares = Spares::new(backend(settings.segments.backend), DEFAULT_SPARES)?;
        let cache = EmbeddingCache::open(&settings.cache, Instant::now(), SystemTime::now());
        let registry = Registry::new(&settings, loaders);
        let state = DaemonState::new(StateParts { settings, reader, registry, cache, spares });
        Ok(Daemon { state: Arc::new(state), open: Arc::default() })
    }
}

impl Daemon {
    /// Starts to build a daemon.
    #[must_use]
    pub fn builder(settings: Settings) -> DaemonBuilder {
        DaemonBuilder { settings, loaders: Loaders::default(), reader: None }
    }

    /// What the daemon holds and does.
    #[must_use]
    pub fn status(&self) -> Status {
        status(&self.state)
    }

    /// Reads the settings again and puts into force what can change while the daemon runs. Returns
    /// which keys changed and which did not. A fault in the settings changes nothing.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub async fn reload(&self) -> Result<Reloaded, String> {
        let reloaded = self.state.reload().await;
        reloaded.map_err(|error| format!("the settings were not changed: {error}"))
    }

    /// Accepts connections until `shutdown` ends, then drains: no new connection or work is
    /// accepted, running work may end (for at most `limits.drain_seconds`), and all connections are
    /// closed.
    ///
    /// Must be called within a tokio runtime with time and I/O. Whether the listener's path is
    /// removed is up to the listener.
    pub async fn run(&self, listener: Listener, shutdown: impl Future<Output = ()>) {
        let mut sessions = JoinSet::new();
        let time = tokio::spawn(Arc::clone(self.state.registry()).keep_time());
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
                    self.state.cache().purge(Instant::now());
                }
                accepted = listener.accept() => match accepted {
                    Ok(stream) => {
                        last_id += 1;
                        self.accept(&mut sessions, stream, ConnectionId(last_id));
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

    /// Serves a connection, unless there are as many as the settings allow.
    fn accept(&self, sessions: &mut JoinSet<()>, stream: Stream, id: ConnectionId) {
        let limit = self.state.settings().limits.connections;
        if let Some(open) = OpenConnection::count(&self.open, limit) {
            let state = Arc::clone(&self.state);
            sessions.spawn(async move {
                serve(state, stream, id).await;
                drop(open);
            });
        } else {
            sessions.spawn(turn_away(stream, ACCEPT_PAUSE));
        }
    }

    async fn drain(&self, mut sessions: JoinSet<()>) {
        tracing::info!(connections = sessions.len(), "stopping");
        self.state.drain();
        let ended = async { while sessions.join_next().await.is_some() {} };
        if timeout(self.state.settings().limits.drain, ended).await.is_err() {
            tracing::warn!(connections = sessions.len(), "work did not end in time: aborted");
        }
        sessions.shutdown().await;
        debug_assert!(self.state.callers().is_empty(), "every session ends its registration");
    }
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daemon").field("settings", &self.state.settings()).finish_non_exhaustive()
    }
}

/// A connection that counts against the limit until this is dropped.
struct OpenConnection(Arc<AtomicUsize>);

impl OpenConnection {
    /// Counts one more connection; `None` if there are `limit` already.
    fn count(open: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let one_more = |open: usize| (open < limit).then_some(open + 1);
        open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Self(Arc::clone(open)))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
