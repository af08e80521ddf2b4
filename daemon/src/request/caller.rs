//! What handlers and the status know of a connection.

use crate::models::lease::ConnectionId;
use crate::request::in_flight::InFlight;
use crate::request::peer::Peer;
use crate::segment::{InlineCredit, SegmentPool};
use std::sync::Arc;
use std::time::Instant;

/// The client behind a connection, and the memory that its answers may take.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) id: ConnectionId,
    /// The process, as the kernel describes it.
    pub(crate) peer: Peer,
    /// What the client calls itself.
    pub(crate) name: String,
    /// When it connected.
    pub(crate) since: Instant,
    /// Its shared memory; `None` if all its results go inline.
    pub(crate) pool: Option<Arc<SegmentPool>>,
    /// Bounds the results that go inline.
    pub(crate) inline: InlineCredit,
    /// Its requests that are not answered yet.
    pub(crate) in_flight: InFlight,
}
