//! The options of a client.

use nix::unistd::geteuid;
use std::time::Duration;

/// What a [`crate::ClientBuilder`] sets.
#[derive(Debug, Clone)]
pub(crate) struct ClientOptions {
    /// The client's name in the daemon's status.
    pub(crate) name: String,
    pub(crate) accepts_segments: bool,
    /// A user, other than our own and root, whose daemon may share memory with us.
    pub(crate) trusted_uid: Option<u32>,
    pub(crate) handshake_timeout: Duration,
    pub(crate) reconnect_patience: Duration,
    /// Whether interrupted requests are repeated.
    pub(crate) repeats: bool,
}

impl ClientOptions {
    /// The defaults, with the client's name.
    pub(crate) fn named(name: String) -> Self {
        Self {
            name,
            accepts_segments: true,
            trusted_uid: None,
            handshake_timeout: Duration::from_secs(10),
            reconnect_patience: Duration::from_secs(5),
            repeats: true,
        }
    }

    /// Whether a daemon of this user may share memory with us: it could write to that memory while
    /// we read. Our own user and root could do anything to this process anyway.
    pub(crate) fn trusts(&self, uid: u32) -> bool {
        uid == 0 || uid == geteuid().as_raw() || self.trusted_uid == Some(uid)
    }
}
