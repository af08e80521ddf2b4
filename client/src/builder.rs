//! How to connect, and where. The one place that reads the environment.

use crate::client::Client;
use crate::connection::Connection;
use crate::error::{ConnectError, Error};
use crate::line::{Line, Starter};
use crate::opening::open;
use crate::start::{Places, StartOptions, open_or_start};
use emberd_protocol::{SocketPaths, default_socket_paths};
use nix::unistd::geteuid;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Nobody waits longer, and a moment so far ahead can still be told.
const LONGEST_PATIENCE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Sets up a [`Client`].
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    options: Options,
}

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) accepts_segments: bool,
    pub(crate) trusted_uid: Option<u32>,
    pub(crate) handshake_timeout: Duration,
    pub(crate) reconnect_patience: Duration,
    /// Whether requests are repeated that were cut off.
    pub(crate) repeats: bool,
}

impl Options {
    /// Whether the daemon of this user may give us memory to read: it could write to it while we
    /// do. Our own user could do anything to us anyway, and so could root.
    pub(crate) fn trusts(&self, uid: u32) -> bool {
        uid == 0 || uid == geteuid().as_raw() || self.trusted_uid == Some(uid)
    }
}

impl Default for ClientBuilder {
    fn default() -> Self {
        let program = std::env::args_os().next().map(PathBuf::from);
        let name = program.as_deref().and_then(Path::file_name);
        Self {
            options: Options {
                name: name.map_or_else(|| "?".into(), |name| name.to_string_lossy().into_owned()),
                accepts_segments: true,
                trusted_uid: None,
                handshake_timeout: Duration::from_secs(10),
                reconnect_patience: Duration::from_secs(5),
                repeats: true,
            },
        }
    }
}

impl ClientBuilder {
    /// What the daemon calls this client in its status; the program's name by default.
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

    /// A user, beside our own and root, whose daemon may give us memory to read. Results of any
    /// other daemon come inline.
    #[must_use]
    pub fn trusted_uid(mut self, uid: u32) -> Self {
        self.options.trusted_uid = Some(uid);
        self
    }

    /// How long the daemon may take to answer the handshake; 10 seconds by default.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.options.handshake_timeout = timeout.clamp(Duration::from_millis(1), LONGEST_PATIENCE);
        self
    }

    /// Whether a request that was cut off is asked again once there is another connection; `true`
    /// by default.
    ///
    /// Cut off is a request whose connection died before the answer, or that the daemon answered
    /// with `SHUTTING_DOWN`. Only requests are repeated that change nothing the second time:
    /// `ping`, `daemon`, `status`, `available_models`, `model_config`, `why`, `plan`, `preload`,
    /// taking a lease, and embedding. Never repeated are `release`, `unload`,
    /// `cleanup_unused_models`, `clear_embedding_cache` and `reload`: after an
    /// [`Error::Transport`] whether they were done is not known.
    ///
    /// A request is repeated at once when there is a connection again; from the second time on
    /// only within the patience ([`ClientBuilder::reconnect_patience`]) since it was first cut
    /// off, and at most three times after a death, since the request may be its cause.
    /// If no daemon comes back, the error is that of connecting. With `false` the error comes at
    /// once, and the next call connects again.
    #[must_use]
    pub fn repeat_requests(mut self, repeat: bool) -> Self {
        self.options.repeats = repeat;
        self
    }

    /// How long connecting again may take while the daemon restarts; 5 seconds by default.
    ///
    /// A call that finds the connection dead connects again, to the same socket. While there is no
    /// socket, nobody behind it, or a daemon that says that it stops, it is tried again and again
    /// until nobody was there for so long. After that each call tries once, and fails at once with
    /// [`ConnectError::NoDaemon`] (or what else is the matter), until a daemon is back. A daemon
    /// that takes the connection has [`ClientBuilder::handshake_timeout`] beyond that to answer.
    ///
    /// The first connection has no such patience: where nobody listens,
    /// [`ClientBuilder::connect`] fails at once.
    #[must_use]
    pub fn reconnect_patience(mut self, patience: Duration) -> Self {
        self.options.reconnect_patience = patience.min(LONGEST_PATIENCE);
        self
    }

    /// Connects to `$EMBERD_SOCKET`; else to the user's daemon
    /// (`$XDG_RUNTIME_DIR/emberd/emberd.sock`) if it answers, else to the machine's
    /// (`/run/emberd/emberd.sock`).
    ///
    /// # Errors
    /// [`Error::Connect`], of the first path where something is wrong beyond nobody being there.
    pub fn connect(self) -> Result<Client, Error> {
        self.dial(blocking).map(Client::over)
    }

    /// Connects to a socket.
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub fn connect_to(self, path: impl AsRef<Path>) -> Result<Client, Error> {
        self.dial_to(path.as_ref(), blocking).map(Client::over)
    }

    /// Connects to the user's own daemon, and starts it where nobody answers: for machines without
    /// systemd.
    ///
    /// The socket is the first place of [`ClientBuilder::connect`] (or
    /// [`StartOptions::socket`]). If nobody answers there, `emberd serve --detach --socket PATH` is
    /// run, and connected to once it is ready. The folder of the socket is made if it is missing,
    /// for this user alone (mode 0700). Of many who start at once one runs the program (a lock on
    /// `PATH.start` decides) and all are connected to the same daemon; it outlives them. What the
    /// program said is left in `PATH.start`.
    ///
    /// A daemon that runs but does not take this client is not replaced, and one that dies later is
    /// not started again: call this once more.
    ///
    /// # Errors
    /// [`ConnectError::Start`] when no program is found, or it fails, or takes too long; else as
    /// [`ClientBuilder::connect`].
    pub fn connect_or_start(self, start: StartOptions) -> Result<Client, Error> {
        self.dial_or_start(start, blocking).map(Client::over)
    }

    pub(crate) fn dial(self, starter: Starter) -> Result<Line, Error> {
        let mut absent = None;
        for path in socket_paths() {
            match self.clone().dial_to(&path, starter) {
                Err(Error::Connect(error @ ConnectError::NoDaemon { .. })) => {
                    // The user's own place is the one to name: that is where `serve` would be.
                    absent.get_or_insert(error);
                }
                result => return result,
            }
        }
        let nowhere = ConnectError::NoDaemon { path: PathBuf::new() };
        Err(absent.unwrap_or(nowhere).into())
    }

    pub(crate) fn dial_to(self, path: &Path, starter: Starter) -> Result<Line, Error> {
        let connection = open(path, &self.options)?;
        Ok(Line::new(path.to_owned(), self.options, starter, connection)?)
    }

    pub(crate) fn dial_or_start(
        self,
        start: StartOptions,
        starter: Starter,
    ) -> Result<Line, Error> {
        let path = start.socket.clone().or_else(|| socket_paths().into_iter().next());
        // The program may look at it from another folder.
        let path = path.map(|path| std::path::absolute(&path).unwrap_or(path)).unwrap_or_default();
        let places = Places {
            // What was set is meant, and nothing else is looked for.
            explicit: start.program.clone().or_else(|| variable("EMBERD_BIN").map(PathBuf::from)),
            this_program: std::env::current_exe().ok(),
            search: variable("PATH"),
        };
        let connection = open_or_start(&path, &self.options, start, &places)?;
        Ok(Line::new(path, self.options, starter, connection)?)
    }
}

/// A connection of a blocking client needs nothing more.
fn blocking(_: &Arc<Connection>) -> io::Result<()> {
    Ok(())
}

fn socket_paths() -> Vec<PathBuf> {
    default_socket_paths(&SocketPaths {
        explicit: variable("EMBERD_SOCKET").map(PathBuf::from),
        runtime_dir: variable("XDG_RUNTIME_DIR").map(PathBuf::from),
    })
}

/// What starts a daemon at a path. Where it is a usual one, nothing needs to be said.
pub(crate) fn serve_command(path: &Path) -> String {
    let runtime_dir = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    let usual = default_socket_paths(&SocketPaths { explicit: None, runtime_dir });
    if usual.iter().any(|usual| usual == path) {
        return "emberd serve".into();
    }
    format!("emberd serve --socket {}", path.display())
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
