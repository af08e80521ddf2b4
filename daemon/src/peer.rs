//! Who is at the other end of a connection, as the kernel says.

use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::StreamCommon;
use nix::unistd::geteuid;
use std::io;

/// The process at the other end when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its process id; 0 where the kernel does not tell.
    pub(crate) pid: u32,
    /// Its effective user id.
    pub(crate) uid: u32,
}

impl Peer {
    /// Asks the kernel.
    ///
    /// # Errors
    /// When the kernel does not tell the user: such a peer is not let in.
    pub(crate) fn of(stream: &Stream) -> io::Result<Self> {
        let credentials = stream.peer_creds()?;
        let uid =
            credentials.euid().ok_or_else(|| io::Error::other("the peer's user is unknown"))?;
        let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        Ok(Self { pid, uid })
    }

    /// Whether it may change the daemon for everybody: the daemon's own user and root may.
    #[must_use]
    pub(crate) fn is_admin(&self) -> bool {
        self.uid == 0 || self.uid == geteuid().as_raw()
    }

    /// Whether it may use this daemon: the daemon's own user and root may.
    #[must_use]
    pub(crate) fn is_permitted(&self) -> bool {
        self.uid == 0 || self.uid == geteuid().as_raw()
    }
}
