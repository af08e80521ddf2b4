//! The path of the daemon's socket.

use std::path::{Path, PathBuf};

/// Paths from the environment, which the caller reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SocketPaths {
    /// `$EMBERD_SOCKET`: if set, no other path is tried.
    pub explicit: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`: the folder of the user's own daemon.
    pub runtime_dir: Option<PathBuf>,
}

/// The paths to try: only the explicit one, or else first the user's daemon, then the machine's.
#[must_use]
pub fn default_socket_paths(paths: &SocketPaths) -> Vec<PathBuf> {
    if let Some(explicit) = &paths.explicit {
        return vec![explicit.clone()];
    }
    let user = paths.runtime_dir.as_deref().map(|dir| dir.join("emberd/emberd.sock"));
    user.into_iter().chain([Path::new("/run/emberd/emberd.sock").to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_daemon_comes_before_the_machines_and_an_explicit_path_is_alone() {
        let mut paths = SocketPaths::default();
        assert_eq!(default_socket_paths(&paths), [PathBuf::from("/run/emberd/emberd.sock")]);
        paths.runtime_dir = Some("/run/user/7".into());
        assert_eq!(
            default_socket_paths(&paths),
            [
                PathBuf::from("/run/user/7/emberd/emberd.sock"),
                PathBuf::from("/run/emberd/emberd.sock")
            ]
        );
        paths.explicit = Some("/tmp/x.sock".into());
        assert_eq!(default_socket_paths(&paths), [PathBuf::from("/tmp/x.sock")]);
    }
}
