//! What the daemon tells of itself. Counters and short locks only: it may be asked every second
//! under full load.

use crate::cache::{CacheSettings, CacheStats};
use crate::connection::session::Connection;
use crate::daemon::Shared;
use crate::ground::memory::resident_bytes;
use crate::ground::sync::lock;
use crate::ground::time::millis;
use crate::models::loaded::ModelSlot;
use crate::models::registry::Seen;
use crate::models::scheduler::CopyState;
use emberd_protocol::{
    CacheStatus, ConnectionStatus, DaemonStatus, DeviceStatus, LeaseStatus, ModelState,
    ModelStatus, SegmentStatus, Status,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What a list of the status may take of its message; models and the rest need room, too.
const MAX_LIST_BYTES: usize = 256 << 10;

/// What an item takes beside its texts, and more.
const ITEM_BYTES: usize = 100;

/// The first items of a list, and how many are left out.
fn listed<T>(items: impl Iterator<Item = T>, texts_bytes: impl Fn(&T) -> usize) -> (Vec<T>, u64) {
    let (mut list, mut bytes, mut left_out) = (Vec::new(), 0, 0);
    for item in items {
        bytes += ITEM_BYTES + texts_bytes(&item);
        if bytes <= MAX_LIST_BYTES {
            list.push(item);
        } else {
            left_out += 1;
        }
    }
    (list, left_out)
}

/// A model's state in the protocol's words: that of its copy which is furthest on its way in.
#[must_use]
pub(crate) fn state(seen: &Seen) -> ModelState {
    let rank = |state: &CopyState| match state {
        CopyState::Ready => 0,
        CopyState::Loading => 1,
        CopyState::Draining => 2,
        CopyState::Unloading => 3,
    };
    match seen.copies.iter().map(|(copy, _)| copy.state).min_by_key(rank) {
        Some(CopyState::Ready) if seen.leases > 0 => ModelState::Ready,
        Some(CopyState::Ready) => ModelState::Idle,
        Some(CopyState::Loading) => ModelState::Loading,
        Some(CopyState::Draining) => ModelState::Draining,
        Some(CopyState::Unloading) => ModelState::Unloading,
        None if seen.is_preparing => ModelState::Loading,
        None if seen.failed.is_some() => ModelState::Failed,
        None => ModelState::Configured,
    }
}

/// Everything at this moment.
#[must_use]
pub(crate) fn of(shared: &Shared) -> Status {
    let now = Instant::now();
    let connections: Vec<Arc<Connection>> =
        lock(&shared.connections).values().map(Arc::clone).collect();
    let by_id: HashMap<_, _> = connections.iter().map(|c| (c.id, c)).collect();
    let overview = shared.registry.overview();
    let leases = overview.leases.into_iter().filter_map(|(id, lease)| {
        let holder = by_id.get(&lease.connection)?;
        Some(LeaseStatus {
            lease: id,
            model: lease.model,
            pid: holder.peer.pid,
            uid: holder.peer.uid,
            client: holder.name.clone(),
            age_ms: millis(now.saturating_duration_since(lease.since)),
        })
    });
    let lease_bytes = |lease: &LeaseStatus| lease.model.as_str().len() + lease.client.len();
    let (leases, leases_left_out) = listed(leases, lease_bytes);
    let of_connections = connections.iter().map(|c| connection(c, now));
    let (of_connections, connections_left_out) = listed(of_connections, |c| c.client.len());
    let devices = overview.devices.into_iter().map(|(figures, used_bytes)| DeviceStatus {
        device: figures.device.to_string(),
        name: figures.name,
        total_bytes: figures.total_bytes,
        free_bytes: figures.free_bytes,
        budget_bytes: figures.budget_bytes,
        used_bytes,
    });
    let settings = shared.settings();
    Status {
        daemon: DaemonStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_ms: millis(now - shared.started),
            resident_bytes: resident_bytes(),
            requests: load(&shared.requests),
            reload_error: lock(&shared.reload_error).clone(),
        },
        leases,
        leases_left_out,
        models: shared.registry.slots().iter().map(|slot| model(shared, slot, now)).collect(),
        connections: of_connections,
        connections_left_out,
        segments: SegmentStatus {
            backend: settings.segments.backend,
            segments: shared.credit.segments(),
            segment_bytes: shared.credit.used_bytes(),
            total_credit_bytes: shared.credit.limit_bytes(),
        },
        cache: cache(shared, &settings.cache),
        devices: devices.collect(),
        latencies: shared.latencies.told(),
    }
}

/// Where a model's files are from, and its type: as it was loaded, or would be now.
#[must_use]
pub(crate) fn origin(slot: &ModelSlot, seen: &Seen) -> (String, String) {
    if let Some(loaded) = seen.copies.iter().find_map(|(_, model)| model.as_ref()) {
        return (loaded.source.clone(), loaded.model_type.clone());
    }
    let settings = slot.settings();
    (settings.source(), settings.model_type)
}

fn model(shared: &Shared, slot: &ModelSlot, now: Instant) -> ModelStatus {
    let seen = shared.registry.seen(&slot.id);
    let loaded: Vec<_> = seen.copies.iter().filter_map(|(_, model)| model.as_ref()).collect();
    let counters = &slot.counters;
    let (source, model_type) = origin(slot, &seen);
    let waits = |quantile| {
        let of = [&counters.work.waits, &counters.texts.waits];
        of.map(|waits| waits.quantile_us(quantile)).into_iter().max().unwrap_or(0)
    };
    let until = |at: Instant| millis(at.saturating_duration_since(now));
    ModelStatus {
        id: slot.id.clone(),
        source,
        model_type,
        state: state(&seen),
        info: loaded.first().map(|model| model.info.clone()),
        failure: seen
            .failed
            .as_ref()
            .map(|failed| crate::ground::error_chain::chain(&*failed.cause)),
        retry_in_ms: seen.failed.as_ref().map(|failed| until(failed.retry_at)),
        copies: count(seen.copies.len()),
        memory_bytes: seen.copies.iter().map(|(copy, _)| copy.bytes).sum(),
        loads: load(&counters.loads),
        unloads: load(&counters.unloads),
        load_ms: load(&counters.load_ms),
        workers: count(loaded.iter().map(|model| model.workers()).sum()),
        leases: count(seen.leases),
        requests: load(&counters.requests),
        texts: load(&counters.work.texts) + load(&counters.texts.texts),
        tokens: load(&counters.work.tokens)
            + load(&counters.texts.input_tokens)
            + load(&counters.texts.tokens),
        batches: load(&counters.work.batches) + load(&counters.texts.steps),
        rows_inline: load(&counters.rows_inline),
        rows_shared: load(&counters.rows_shared),
        texts_cached: load(&counters.texts_cached),
        busy: count(seen.copies.iter().map(|(copy, _)| copy.uses).sum()),
        queued_texts: loaded.iter().map(|model| model.queued_texts() as u64).sum(),
        // A model has one of both kinds of workers; the other has counted nothing.
        queue_wait_p50_us: waits(0.5),
        queue_wait_p99_us: waits(0.99),
        idle_ms: seen.last_used.map(|at| millis(now.saturating_duration_since(at))),
        unload_in_ms: seen.unload_at.map(until),
    }
}

fn cache(shared: &Shared, settings: &CacheSettings) -> CacheStatus {
    let CacheStats {
        entries,
        bytes,
        hits,
        misses,
        evictions,
        expired,
        persisted_entries,
        persist_skipped,
        error,
    } = shared.cache.stats();
    CacheStatus {
        is_enabled: settings.enabled,
        entries: entries as u64,
        max_entries: settings.max_entries as u64,
        bytes: bytes as u64,
        hits,
        misses,
        evictions,
        expired,
        persisted_entries: persisted_entries as u64,
        persist_skipped,
        failure: error,
    }
}

fn connection(connection: &Connection, now: Instant) -> ConnectionStatus {
    let pool = connection.pool.as_deref();
    ConnectionStatus {
        connection: connection.id.0,
        pid: connection.peer.pid,
        uid: connection.peer.uid,
        client: connection.name.clone(),
        age_ms: millis(now - connection.since),
        requests_in_flight: count(connection.requests_in_flight()),
        segments: pool.map_or(0, crate::segment::SegmentPool::segments),
        segment_bytes: pool.map_or(0, crate::segment::SegmentPool::segment_bytes),
        held_bytes: pool.map_or(0, crate::segment::SegmentPool::held_bytes),
        credit_bytes: pool.map_or(0, crate::segment::SegmentPool::credit_bytes),
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
