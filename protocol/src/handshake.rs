//! The first exchange on a connection.

use crate::bounded;
use crate::segment::SegmentBackend;
use serde::{Deserialize, Serialize};

/// The version of the protocol: in every frame's header, and in the handshake.
pub const PROTOCOL_VERSION: u8 = 3;

/// The client's first frame. Its process and user are known from the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The client's name for itself, for status and logs; cut at 64 characters.
    #[serde(deserialize_with = "bounded::string")]
    pub name: String,
    /// Whether large results may come in shared memory. `false`: all results come inline.
    pub accepts_segments: bool,
}

/// The daemon accepts the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The daemon's version, such as `0.1.0`.
    #[serde(deserialize_with = "bounded::string")]
    pub daemon_version: String,
    /// The daemon's process id.
    pub daemon_pid: u32,
    /// How the daemon makes shared memory.
    pub backend: SegmentBackend,
    /// The limits of this connection.
    pub limits: Limits,
}

/// The limits of one connection. A request beyond them fails with `LIMIT_EXCEEDED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Texts in one request.
    pub max_texts: u32,
    /// Bytes of one frame.
    pub max_frame_bytes: u32,
    /// Requests that may wait for their answers at the same time; more are not read from the
    /// socket until one is answered.
    pub max_requests_in_flight: u32,
    /// Leases held at the same time.
    pub max_leases: u32,
    /// Results up to this size come inline.
    pub inline_bytes: u32,
    /// Shared memory that unfreed results of this connection may hold.
    pub credit_bytes: u64,
}

/// Why the daemon refuses the client. The connection ends after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub reason: RefusalReason,
    /// For people.
    #[serde(deserialize_with = "bounded::string")]
    pub message: String,
}

/// The kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RefusalReason {
    /// The client speaks another version of the protocol.
    Version,
    /// This user may not use this daemon.
    NotPermitted,
    /// The daemon has reached its limit of connections.
    TooManyConnections,
    /// The daemon is stopping.
    ShuttingDown,
    /// The first frame was not a [`Hello`].
    NoHello,
}
