//! How the cache is configured.

use std::path::PathBuf;
use std::time::Duration;

/// How many rows are kept, how long, where, and for which users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// Whether rows are cached at all.
    pub enabled: bool,
    /// Rows in memory at most, and as many in the file.
    pub max_entries: usize,
    /// How long after its computation a row may be used; at this age it is gone.
    pub ttl: Duration,
    /// Whether rows are also kept in a file, and survive a restart of the daemon.
    pub persists: bool,
    /// That file.
    pub file: Option<PathBuf>,
    /// Whether a user may get a row that was computed for another user. The time that an answer
    /// takes then tells any user whether somebody has embedded the same text.
    pub is_shared_between_users: bool,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            max_entries: 10_000,
            ttl: Duration::from_secs(3600),
            persists: false,
            file: None,
            is_shared_between_users: false,
        }
    }
}
