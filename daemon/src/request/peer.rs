//! The process at the other end of a connection, and what its user may do.

use crate::settings::AccessGroup;
use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};
use std::ffi::CString;

/// A client process, as the kernel described it when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its process id; 0 if the kernel does not tell.
    pub(crate) pid: u32,
    /// Its effective user id.
    pub(crate) uid: u32,
}

impl Peer {
    /// Whether its user is the daemon's own or root. These may always use the daemon, and alone may
    /// change it for everybody.
    #[must_use]
    pub(crate) fn is_admin(&self) -> bool {
        self.uid == 0 || self.uid == geteuid().as_raw()
    }

    /// Whether its user is in a group. Blocks if the machine looks up users over a network.
    #[must_use]
    pub(crate) fn is_member(&self, group: &AccessGroup) -> bool {
        // The user decides, not the process's own list of groups, which may be out of date.
        let Ok(Some(user)) = User::from_uid(Uid::from_raw(self.uid)) else { return false };
        let Ok(name) = CString::new(user.name) else { return false };
        let groups = getgrouplist(&name, user.gid).unwrap_or_default();
        groups.contains(&Gid::from_raw(group.gid))
    }
}
