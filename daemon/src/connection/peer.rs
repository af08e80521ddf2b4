//! Who is at the other end of a connection, as the kernel says.

use crate::settings::AccessGroup;
use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::StreamCommon;
use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};
use std::ffi::CString;
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

    /// Whether it may use the daemon in any case, and change it for everybody: the daemon's own user
    /// and root may.
    #[must_use]
    pub(crate) fn is_admin(&self) -> bool {
        self.uid == 0 || self.uid == geteuid().as_raw()
    }

    /// Whether its user is in a group. Blocks where users are asked for over a network.
    #[must_use]
    pub(crate) fn is_member(&self, group: &AccessGroup) -> bool {
        // By the user, not by what the process calls its groups: these may be of another time.
        let Ok(Some(user)) = User::from_uid(Uid::from_raw(self.uid)) else { return false };
        let Ok(name) = CString::new(user.name) else { return false };
        let groups = getgrouplist(&name, user.gid).unwrap_or_default();
        groups.contains(&Gid::from_raw(group.gid))
    }
}
