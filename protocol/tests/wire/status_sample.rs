//! A status in which no two numbers are the same.

use crate::samples::{leased, model};
use emberd_protocol::{
    CacheStatus, ConnectionStatus, DaemonStatus, DeviceStatus, LatencyStatus, LeaseId, LeaseStatus,
    ModelKind, ModelState, ModelStatus, SegmentBackend, SegmentStatus, Status,
};

pub(crate) fn status() -> Status {
    Status {
        daemon: DaemonStatus {
            version: "0.1.0".into(),
            pid: 4711,
            uptime_ms: 1_001,
            resident_bytes: 1_002,
            requests: 1_003,
            reload_error: Some("line 3".into()),
        },
        models: vec![model_status()],
        leases: vec![LeaseStatus {
            lease: LeaseId(7),
            model: model("builtin"),
            pid: 3_001,
            uid: 3_002,
            client: "demo".into(),
            age_ms: 3_003,
        }],
        leases_left_out: 3_004,
        connections: vec![ConnectionStatus {
            connection: 4_001,
            pid: 4_002,
            uid: 4_003,
            client: "demo".into(),
            age_ms: 4_004,
            requests_in_flight: 4_005,
            segments: 4_006,
            segment_bytes: 4_007,
            held_bytes: 4_008,
            credit_bytes: 4_009,
        }],
        connections_left_out: 4_010,
        segments: SegmentStatus {
            backend: SegmentBackend::Memfd,
            segments: 5_001,
            segment_bytes: 5_002,
            total_credit_bytes: 5_003,
        },
        cache: CacheStatus {
            is_enabled: true,
            entries: 6_001,
            max_entries: 6_002,
            bytes: 6_003,
            hits: 6_004,
            misses: 6_005,
            evictions: 6_006,
            expired: 6_007,
            persisted_entries: 6_008,
            persist_skipped: 6_009,
            failure: None,
        },
        devices: vec![DeviceStatus {
            device: "cuda:0".into(),
            name: "a GPU".into(),
            total_bytes: 7_001,
            free_bytes: 7_002,
            budget_bytes: 7_003,
            used_bytes: 7_004,
        }],
        latencies: vec![LatencyStatus {
            kind: "embed".into(),
            count: 8_001,
            p50_us: 8_002,
            p90_us: 8_003,
            p99_us: 8_004,
            max_us: 8_005,
        }],
    }
}

fn model_status() -> ModelStatus {
    ModelStatus {
        id: model("builtin"),
        model_type: "embedding".into(),
        source: "builtin:static-minilm".into(),
        state: ModelState::Ready,
        info: Some(leased("builtin", ModelKind::Embedding).model),
        failure: None,
        retry_in_ms: None,
        copies: 2_013,
        memory_bytes: 2_014,
        loads: 2_001,
        unloads: 2_015,
        load_ms: 2_002,
        workers: 2_003,
        leases: 2_004,
        requests: 2_005,
        texts: 2_006,
        tokens: 2_007,
        batches: 2_008,
        rows_inline: 2_009,
        rows_shared: 2_010,
        texts_cached: 2_016,
        busy: 2_017,
        queued_texts: 2_011,
        queue_wait_p50_us: 2_018,
        queue_wait_p99_us: 2_019,
        idle_ms: Some(2_012),
        unload_in_ms: Some(2_020),
    }
}
