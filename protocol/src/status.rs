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
    /// The leases, ordered by id; the first of them, where all would not fit a message.
    #[serde(deserialize_with = "bounded::list")]
    pub leases: Vec<LeaseStatus>,
    /// Leases that are not listed.
    pub leases_left_out: u64,
    /// The connections, ordered by age; the first of them, where all would not fit a message.
    #[serde(deserialize_with = "bounded::list")]
    pub connections: Vec<ConnectionStatus>,
    /// Connections that are not listed.
    pub connections_left_out: u64,
    /// Shared memory of all connections.
    pub segments: SegmentStatus,
    /// The embedding cache.
    pub cache: CacheStatus,
    /// Where models can compute.
    #[serde(deserialize_with = "bounded::list")]
    pub devices: Vec<DeviceStatus>,
    /// How long requests took, by kind.
    #[serde(deserialize_with = "bounded::list")]
    pub latencies: Vec<LatencyStatus>,
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
    /// Why the last reading of the settings file changed nothing.
    #[serde(deserialize_with = "bounded::optional_string")]
    pub reload_error: Option<String>,
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
    /// Until a request tries to load it again, after a failure.
    pub retry_in_ms: Option<u64>,
    /// Its copies in memory: one where it is shared, else one for each holder.
    pub copies: u32,
    /// What its copies take, computed from their weights and batches.
    pub memory_bytes: u64,
    /// How often it was loaded.
    pub loads: u64,
    /// How often it left the memory.
    pub unloads: u64,
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
    /// Texts that were not computed, since the cache or the same request had their rows.
    pub texts_cached: u64,
    /// Requests that wait or are computed now.
    pub busy: u32,
    /// Texts that wait now.
    pub queued_texts: u64,
    /// How long texts waited for a worker: half of them less than this.
    pub queue_wait_p50_us: u64,
    /// How long texts waited for a worker: 99 of 100 less than this.
    pub queue_wait_p99_us: u64,
    /// Since the last request or release; `None` before the first.
    pub idle_ms: Option<u64>,
    /// Until it is unloaded, if nobody asks for it; `None` where it is held, busy or not loaded.
    pub unload_in_ms: Option<u64>,
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
    /// Bytes of results that it may hold unfreed.
    pub credit_bytes: u64,
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

/// The embedding cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Whether there is one.
    pub is_enabled: bool,
    /// Rows in it.
    pub entries: u64,
    /// Rows that it takes at most.
    pub max_entries: u64,
    /// What its rows take.
    pub bytes: u64,
    /// Texts whose row was there.
    pub hits: u64,
    /// Texts whose row was not.
    pub misses: u64,
    /// Rows that left for others.
    pub evictions: u64,
    /// Rows that grew too old.
    pub expired: u64,
    /// Rows on disk.
    pub persisted_entries: u64,
    /// Rows that the file did not get, since too many waited for it or it could not be written.
    pub persist_skipped: u64,
    /// What is wrong with the file (`CACHE_ERROR`); requests go on without it.
    #[serde(deserialize_with = "bounded::optional_string")]
    pub failure: Option<String>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Such as `cpu` or `cuda:0`.
    #[serde(deserialize_with = "bounded::string")]
    pub device: String,
    /// What it is, such as `NVIDIA H100`.
    #[serde(deserialize_with = "bounded::string")]
    pub name: String,
    /// Its memory.
    pub total_bytes: u64,
    /// What of it nobody uses, as it reports.
    pub free_bytes: u64,
    /// What the models may take.
    pub budget_bytes: u64,
    /// What they take, computed from their weights and batches.
    pub used_bytes: u64,
}

/// How long requests of one kind took, from their arrival to their answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyStatus {
    /// The kind, such as `embed`.
    #[serde(deserialize_with = "bounded::string")]
    pub kind: String,
    /// How many.
    pub count: u64,
    /// Half of them took less than this.
    pub p50_us: u64,
    /// 90 of 100 took less.
    pub p90_us: u64,
    /// 99 of 100 took less.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}
