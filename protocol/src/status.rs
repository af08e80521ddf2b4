//! What the daemon tells of itself.

use crate::bounded;
use crate::id::{LeaseId, ModelId};
use crate::model::{ModelInfo, ModelState};
use crate::segment::SegmentBackend;
use serde::{Deserialize, Serialize};

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The process.
    pub daemon: DaemonStatus,
    /// The models, ordered by id.
    #[serde(deserialize_with = "bounded::list")]
    pub models: Vec<ModelStatus>,
    /// The leases, ordered by id.
    #[serde(deserialize_with = "bounded::list")]
    pub leases: Vec<LeaseStatus>,
    /// The connections, ordered by age.
    #[serde(deserialize_with = "bounded::list")]
    pub connections: Vec<ConnectionStatus>,
    /// Shared memory of all connections.
    pub segments: SegmentStatus,
}

/// The daemon's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Its version.
    #[serde(deserialize_with = "bounded::string")]
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Since it started.
    pub uptime_ms: u64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Requests answered, of every kind.
    pub requests: u64,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStatus {
    /// Its id.
    pub id: ModelId,
    /// Its type as configured.
    #[serde(deserialize_with = "bounded::string")]
    pub model_type: String,
    /// Where its files come from.
    #[serde(deserialize_with = "bounded::string")]
    pub source: String,
    /// Where it is in its life.
    pub state: ModelState,
    /// What was loaded, while it is.
    pub info: Option<ModelInfo>,
    /// Why the last load failed.
    #[serde(deserialize_with = "bounded::optional_string")]
    pub failure: Option<String>,
    /// How often it was loaded.
    pub loads: u64,
    /// How long the last load took.
    pub load_ms: u64,
    /// Threads that compute for it.
    pub workers: u32,
    /// Leases on it now.
    pub leases: u32,
    /// Requests answered.
    pub requests: u64,
    /// Texts embedded.
    pub texts: u64,
    /// Tokens computed.
    pub tokens: u64,
    /// Batches computed.
    pub batches: u64,
    /// Texts that came back inline.
    pub rows_inline: u64,
    /// Texts that came back through shared memory.
    pub rows_shared: u64,
    /// Texts that wait now.
    pub queued_texts: u64,
    /// Since the last request or release; `None` before the first.
    pub idle_ms: Option<u64>,
}

/// One lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// Its id.
    pub lease: LeaseId,
    /// On what.
    pub model: ModelId,
    /// The holder's process id, by the kernel.
    pub pid: u32,
    /// The holder's user id, by the kernel.
    pub uid: u32,
    /// What the holder calls itself.
    #[serde(deserialize_with = "bounded::string")]
    pub client: String,
    /// Since it was taken.
    pub age_ms: u64,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// Its number.
    pub connection: u64,
    /// The peer's process id, by the kernel.
    pub pid: u32,
    /// The peer's user id, by the kernel.
    pub uid: u32,
    /// What the peer calls itself.
    #[serde(deserialize_with = "bounded::string")]
    pub client: String,
    /// Since it connected.
    pub age_ms: u64,
    /// Requests not yet answered.
    pub requests_in_flight: u32,
    /// Segments announced to it.
    pub segments: u32,
    /// Bytes of those segments.
    pub segment_bytes: u64,
    /// Bytes of results that it has not freed.
    pub held_bytes: u64,
}

/// Shared memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentStatus {
    /// How segments are made.
    pub backend: SegmentBackend,
    /// Segments that exist.
    pub segments: u32,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Bytes that all connections together may have.
    pub total_credit_bytes: u64,
}
