//! How to connect, and where.

use crate::environment;
use crate::error::{ConnectError, Error};
use crate::options::ClientOptions;
use crate::transport::StartOptions;
use crate::transport::connect::connect;
use crate::transport::find_program::ProgramSearch;
use crate::transport::link::{Link, SetUp};
use crate::transport::spawn::connect_or_start;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest time limit: a deadline so far ahead can still be represented.
const MAX_PATIENCE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Sets up a [`crate::Client`].
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    options: ClientOptions,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self { options: ClientOptions::named(environment::program_name()) }
    }
}

impl ClientBuilder {
    /// The client's name in the daemon's status; the program's name by default.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = name.into();
        self
    }

    /// All results come inline, none in shared memory.
    #[must_use]
    pub fn inline_only(mut self) -> Self {
        self.options.accepts_segments = false;
        self
    }

    /// A user, other than our own and root, whose daemon may share memory with us. The results of any
    /// other daemon come inline.
    #[must_use]
    pub fn trusted_uid(mut self, uid: u32) -> Self {
        self.options.trusted_uid = Some(uid);
        self
    }

    /// How long the daemon may take to complete the handshake; 10 seconds by default.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.options.handshake_timeout = timeout.clamp(Duration::from_millis(1), MAX_PATIENCE);
        self
    }

    /// Whether an interrupted request is repeated on the next connection; `true` by default.
    ///
    /// A request is interrupted when its connection dies before the response, or when the response
    /// is `SHUTTING_DOWN`. Only requests that change nothing the second time are repeated: `ping`,
    /// `daemon`, `status`, `available_models`, `model_config`, `why`, `plan`, `preload`, taking a
    /// lease, embedding, reranking, generating and filling masks (a stream only before its first
    /// piece). `release`, `unload`, `cleanup_unused_models`, `clear_embedding_cache` and `reload`
    /// are never repeated: after an [`Error::Transport`] the daemon may or may not have carried them
    /// out.
    ///
    /// The first repetition follows as soon as there is a connection. Further ones follow only
    /// within the patience ([`ClientBuilder::reconnect_patience`]) since the first interruption, and
    /// after at most three deaths, since the request may be their cause. If no daemon comes back,
    /// the error is that of connecting. With `false` the call fails at once, and the next call
    /// connects again.
    #[must_use]
    pub fn repeat_requests(mut self, repeat: bool) -> Self {
        self.options.repeats = repeat;
        self
    }

    /// How long connecting again may take while the daemon restarts; 5 seconds by default.
    ///
    /// A call that finds the connection dead connects again, to the same socket. While the socket
    /// is missing, nobody listens on it, or the daemon says that it is stopping, the call keeps
    /// trying, until no daemon was there for this time. After that each call tries once and fails
    /// at once with [`ConnectError::NoDaemon`] (or another error), until a daemon is back. A
    /// daemon that accepts the connection has [`ClientBuilder::handshake_timeout`] on top of this.
    ///
    /// The first connection has no such patience: if nobody listens, `connect` fails at once.
    #[must_use]
    pub fn reconnect_patience(mut self, patience: Duration) -> Self {
        self.options.reconnect_patience = patience.min(MAX_PATIENCE);
        self
    }

    /// A link to the first default socket that has a daemon.
    pub(crate) fn link(self, set_up: SetUp) -> Result<Link, Error> {
        let mut absent = None;
        for path in environment::socket_paths() {
            match self.clone().link_to(&path, set_up) {
                Err(Error::Connect(error @ ConnectError::NoDaemon { .. })) => {
                    // The error names the user's own socket, where `emberd serve` would listen.
                    absent.get_or_insert(error);
                }
                result => return result,
            }
        }
        let nowhere = ConnectError::NoDaemon { path: PathBuf::new() };
        Err(absent.unwrap_or(nowhere).into())
    }

    /// A link to a socket.
    pub(crate) fn link_to(self, path: &Path, set_up: SetUp) -> Result<Link, Error> {
        let connection = connect(path, &self.options)?;
        Ok(Link::new(path.to_owned(), self.options, set_up, connection)?)
    }

    /// A link to the user's own daemon, which is started if none runs.
    pub(crate) fn link_or_start(self, start: StartOptions, set_up: SetUp) -> Result<Link, Error> {
        let path = start.socket.clone().or_else(|| environment::socket_paths().into_iter().next());
        // Absolute: the daemon may run in another folder.
        let path = path.map(|path| std::path::absolute(&path).unwrap_or(path)).unwrap_or_default();
        let search = ProgramSearch {
            explicit: start.program.clone().or_else(environment::daemon_program),
            this_program: environment::this_program(),
            search_path: environment::search_path(),
        };
        let connection = connect_or_start(&path, &self.options, start, &search)?;
        Ok(Link::new(path, self.options, set_up, connection)?)
    }
}
