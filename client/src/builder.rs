//! How to connect, and where. The one place that reads the environment.

use crate::client::Client;
use crate::error::{ConnectError, Error};
use emberd_protocol::{SocketPaths, default_socket_paths};
use nix::unistd::geteuid;
use std::path::{Path, PathBuf};
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

    /// Connects to `$EMBERD_SOCKET`; else to the user's daemon
    /// (`$XDG_RUNTIME_DIR/emberd/emberd.sock`) if it answers, else to the machine's
    /// (`/run/emberd/emberd.sock`).
    ///
    /// # Errors
    /// [`Error::Connect`], of the first path where something is wrong beyond nobody being there.
    pub fn connect(self) -> Result<Client, Error> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let paths = default_socket_paths(&SocketPaths {
            explicit: variable("EMBERD_SOCKET").map(PathBuf::from),
            runtime_dir: variable("XDG_RUNTIME_DIR").map(PathBuf::from),
        });
        let mut absent = None;
        for path in paths {
            match Client::open(path, self.options.clone()) {
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

    /// Connects to a socket.
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub fn connect_to(self, path: impl AsRef<Path>) -> Result<Client, Error> {
        Client::open(path.as_ref().to_owned(), self.options)
    }
}
