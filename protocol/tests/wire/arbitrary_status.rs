//! Any status.

use crate::arbitrary::{backend, lease, model_id, state, text};
use crate::arbitrary_models::info;
use emberd_protocol::{
    CacheStatus, ConnectionStatus, DaemonStatus, DeviceStatus, LatencyStatus, LeaseStatus,
    ModelStatus, SegmentStatus, Status,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Strategy, any};

pub(crate) fn status() -> impl Strategy<Value = Status> {
    let daemon = (text(), any::<(u32, u64, u64, u64)>(), option::of(text())).prop_map(
        |(version, numbers, reload_error)| DaemonStatus {
            version,
            pid: numbers.0,
            uptime_ms: numbers.1,
            resident_bytes: numbers.2,
            requests: numbers.3,
            reload_error,
        },
    );
    let segments =
        (backend(), any::<(u32, u64, u64)>()).prop_map(|(backend, numbers)| SegmentStatus {
            backend,
            segments: numbers.0,
            segment_bytes: numbers.1,
            total_credit_bytes: numbers.2,
        });
    let lists = (
        vec(model_status(), 0..3),
        vec(lease_status(), 0..3),
        vec(connection_status(), 0..3),
        vec(device(), 0..3),
        vec(latency(), 0..3),
    );
    let left_out = any::<(u64, u64)>();
    (daemon, lists, segments, cache(), left_out).prop_map(
        |(daemon, lists, segments, cache, (leases_left_out, connections_left_out))| {
            let (models, leases, connections, devices, latencies) = lists;
            Status {
                daemon,
                models,
                leases,
                leases_left_out,
                connections,
                connections_left_out,
                segments,
                cache,
                devices,
                latencies,
            }
        },
    )
}

fn lease_status() -> impl Strategy<Value = LeaseStatus> {
    (lease(), model_id(), any::<(u32, u32, u64)>(), text()).prop_map(
        |(lease, model, (pid, uid, age_ms), client)| LeaseStatus {
            lease,
            model,
            pid,
            uid,
            client,
            age_ms,
        },
    )
}

fn model_status() -> impl Strategy<Value = ModelStatus> {
    let words = (text(), text(), option::of(text()));
    let numbers = (any::<[u64; 14]>(), any::<[u32; 4]>(), any::<[Option<u64>; 3]>());
    (model_id(), words, state(), option::of(info()), numbers).prop_map(
        |(id, (model_type, source, failure), state, info, (long, short, maybe))| ModelStatus {
            id,
            model_type,
            source,
            state,
            info,
            failure,
            retry_in_ms: maybe[0],
            copies: short[0],
            memory_bytes: long[0],
            loads: long[1],
            unloads: long[2],
            load_ms: long[3],
            workers: short[1],
            leases: short[2],
            requests: long[4],
            texts: long[5],
            tokens: long[6],
            batches: long[7],
            rows_inline: long[8],
            rows_shared: long[9],
            texts_cached: long[10],
            busy: short[3],
            queued_texts: long[11],
            queue_wait_p50_us: long[12],
            queue_wait_p99_us: long[13],
            idle_ms: maybe[1],
            unload_in_ms: maybe[2],
        },
    )
}

fn connection_status() -> impl Strategy<Value = ConnectionStatus> {
    (text(), any::<[u64; 5]>(), any::<[u32; 4]>()).prop_map(|(client, long, short)| {
        ConnectionStatus {
            connection: long[0],
            pid: short[0],
            uid: short[1],
            client,
            age_ms: long[1],
            requests_in_flight: short[2],
            segments: short[3],
            segment_bytes: long[2],
            held_bytes: long[3],
            credit_bytes: long[4],
        }
    })
}

fn cache() -> impl Strategy<Value = CacheStatus> {
    (any::<(bool, [u64; 8])>(), option::of(text())).prop_map(|((is_enabled, numbers), failure)| {
        CacheStatus {
            is_enabled,
            entries: numbers[0],
            max_entries: numbers[1],
            bytes: numbers[2],
            hits: numbers[3],
            misses: numbers[4],
            evictions: numbers[5],
            expired: numbers[6],
            persisted_entries: numbers[7],
            persist_skipped: numbers[0],
            failure,
        }
    })
}

fn device() -> impl Strategy<Value = DeviceStatus> {
    (text(), text(), any::<[u64; 4]>()).prop_map(|(device, name, numbers)| DeviceStatus {
        device,
        name,
        total_bytes: numbers[0],
        free_bytes: numbers[1],
        budget_bytes: numbers[2],
        used_bytes: numbers[3],
    })
}

fn latency() -> impl Strategy<Value = LatencyStatus> {
    (text(), any::<[u64; 5]>()).prop_map(|(kind, numbers)| LatencyStatus {
        kind,
        count: numbers[0],
        p50_us: numbers[1],
        p90_us: numbers[2],
        p99_us: numbers[3],
        max_us: numbers[4],
    })
}
