//! The status of the daemon.

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
    /// The leases, ordered by id; only the first ones, if all do not fit a message.
    #[serde(deserialize_with = "bounded::list")]
    pub leases: Vec<LeaseStatus>,
    /// Leases that are not listed.
    pub leases_left_out: u64,
    /// The connections, ordered by age; only the first ones, if all do not fit a message.
    #[serde(deserialize_with = "bounded::list")]
    pub connections: Vec<ConnectionStatus>,
    /// Connections that are not listed.
    pub connections_left_out: u64,
    /// Shared memory of all connections.
    pub segments: SegmentStatus,
    /// The embedding cache.
    pub cache: CacheStatus,
    /// The devices that models can compute on.
    #[serde(deserialize_with = "bounded::list")]
    pub devices: Vec<DeviceStatus>,
    /// The latencies of requests, by kind.
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
    /// Time since it started.
    pub uptime_ms: u64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Requests of all kinds that were answered.
    pub requests: u64,
    /// Why the last reload of the settings failed.
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
    /// The source of its files.
    #[serde(deserialize_with = "bounded::string")]
    pub source: String,
    /// Its state.
    pub state: ModelState,
    /// The loaded model, while it is loaded.
    pub info: Option<ModelInfo>,
    /// Why the last load failed.
    #[serde(deserialize_with = "bounded::optional_string")]
    pub failure: Option<String>,
    /// Time until a request tries to load it again, after a failure.
    pub retry_in_ms: Option<u64>,
    /// Its instances in memory: one if it is shared, else one for each holder.
    pub copies: u32,
    /// Memory of its instances, computed from their weights and batches.
    pub memory_bytes: u64,
    /// How often it was loaded.
    pub loads: u64,
    /// How often it was unloaded.
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
    /// Rows that were returned inline.
    pub rows_inline: u64,
    /// Rows that were returned in shared memory.
    pub rows_shared: u64,
    /// Texts that were not computed, because the cache or the same request had their rows.
    pub texts_cached: u64,
    /// Requests that wait or are being computed.
    pub busy: u32,
    /// Texts that wait.
    pub queued_texts: u64,
    /// How long texts waited for a worker: the median.
    pub queue_wait_p50_us: u64,
    /// How long texts waited for a worker: the 99th percentile.
    pub queue_wait_p99_us: u64,
    /// Time since the last request or release; `None` before the first.
    pub idle_ms: Option<u64>,
    /// Time until it is unloaded if no request comes; `None` if it is leased, busy or not loaded.
    pub unload_in_ms: Option<u64>,
}

/// One lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// Its id.
    pub lease: LeaseId,
    /// Its model.
    pub model: ModelId,
    /// The holder's process id, from the kernel.
    pub pid: u32,
    /// The holder's user id, from the kernel.
    pub uid: u32,
    /// The holder's name for itself.
    #[serde(deserialize_with = "bounded::string")]
    pub client: String,
    /// Time since it was acquired.
    pub age_ms: u64,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// Its number.
    pub connection: u64,
    /// The peer's process id, from the kernel.
    pub pid: u32,
    /// The peer's user id, from the kernel.
    pub uid: u32,
    /// The peer's name for itself.
    #[serde(deserialize_with = "bounded::string")]
    pub client: String,
    /// Time since it connected.
    pub age_ms: u64,
    /// Requests that are not answered yet.
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
    /// Bytes that the segments of all connections may have.
    pub total_credit_bytes: u64,
}

/// The embedding cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Whether it is enabled.
    pub is_enabled: bool,
    /// Rows in it.
    pub entries: u64,
    /// Rows that it holds at most.
    pub max_entries: u64,
    /// Memory of its rows.
    pub bytes: u64,
    /// Look-ups that found a row.
    pub hits: u64,
    /// Look-ups that found none.
    pub misses: u64,
    /// Rows that were dropped to make room for others.
    pub evictions: u64,
    /// Rows that were dropped because of their age.
    pub expired: u64,
    /// Rows on disk.
    pub persisted_entries: u64,
    /// Rows that were not written to the file: too many waited, or the file could not be used.
    pub persist_skipped: u64,
    /// What is wrong with the file (`CACHE_ERROR`). Requests do not depend on it.
    #[serde(deserialize_with = "bounded::optional_string")]
    pub failure: Option<String>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Such as `cpu` or `cuda:0`.
    #[serde(deserialize_with = "bounded::string")]
    pub device: String,
    /// Its product name, such as `NVIDIA H100`.
    #[serde(deserialize_with = "bounded::string")]
    pub name: String,
    /// Its memory.
    pub total_bytes: u64,
    /// Free memory, as the device reports it.
    pub free_bytes: u64,
    /// Memory that models may take.
    pub budget_bytes: u64,
    /// Memory that models take, computed from their weights and batches.
    pub used_bytes: u64,
}

/// The latencies of requests of one kind, from arrival to answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyStatus {
    /// The kind, such as `embed`.
    #[serde(deserialize_with = "bounded::string")]
    pub kind: String,
    /// How many.
    pub count: u64,
    /// The median.
    pub p50_us: u64,
    /// The 90th percentile.
    pub p90_us: u64,
    /// The 99th percentile.
    pub p99_us: u64,
    /// The maximum.
    pub max_us: u64,
}
