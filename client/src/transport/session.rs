use crate::wire::connection::Connection;
use std::sync::Arc;

/// A connection, and its number among those that a link made. Leases belong to the session that
/// took them.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) connection: Arc<Connection>,
    pub(crate) generation: u64,
}
