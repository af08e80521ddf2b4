//! The status of the daemon. Made of counters and short locks alone, so that it can be asked for
//! every second under full load.

use crate::cache::{CacheSettings, CacheStats};
use crate::ground::error_chain::chain;
use crate::ground::memory::resident_bytes;
use crate::ground::time::millis;
use crate::models::registry::ModelSnapshot;
use crate::models::scheduler::InstanceState;
use crate::models::slot::ModelSlot;
use crate::request::caller::Caller;
use crate::request::state::DaemonState;
use crate::segment::SegmentPool;
use emberd_protocol::{
    CacheStatus, ConnectionStatus, DaemonStatus, DeviceStatus, LeaseStatus, ModelState,
    ModelStatus, SegmentStatus, Status,
};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The bytes of a list: models and the rest must fit the message too.
const MAX_LIST_BYTES: usize = 256 << 10;

/// The bytes of an item without its texts, rounded up.
const ITEM_BYTES: usize = 100;

/// The status at this moment.
#[must_use]
pub(crate) fn status(state: &DaemonState) -> Status {
    let now = Instant::now();
    let callers = state.callers();
    let by_id: HashMap<_, _> = callers.iter().map(|caller| (caller.id, caller)).collect();
    let snapshot = state.registry().snapshot();
    let leases = snapshot.leases.into_iter().filter_map(|(id, lease)| {
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
    let connections = callers.iter().map(|caller| connection(caller, now));
    let (connections, connections_left_out) = listed(connections, |c| c.client.len());
    let devices = snapshot.devices.into_iter().map(|(figures, used_bytes)| DeviceStatus {
        device: figures.device.to_string(),
        name: figures.name,
        total_bytes: figures.total_bytes,
        free_bytes: figures.free_bytes,
        budget_bytes: figures.budget_bytes,
        used_bytes,
    });
    let settings = state.settings();
    Status {
        daemon: DaemonStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_ms: millis(state.uptime()),
            resident_bytes: resident_bytes(),
            requests: state.answered(),
            reload_error: state.reload_error(),
        },
        leases,
        leases_left_out,
        models: state.registry().slots().iter().map(|slot| model(state, slot, now)).collect(),
        connections,
        connections_left_out,
        segments: SegmentStatus {
            backend: settings.segments.backend,
            segments: state.segment_credit().segments(),
            segment_bytes: state.segment_credit().used_bytes(),
            total_credit_bytes: state.segment_credit().limit_bytes(),
        },
        cache: cache(state, &settings.cache),
        devices: devices.collect(),
        latencies: state.latencies(),
    }
}

/// A model's state in the protocol's words: that of the copy which is nearest to being ready.
#[must_use]
pub(super) fn model_state(snapshot: &ModelSnapshot) -> ModelState {
    let rank = |state: &InstanceState| match state {
        InstanceState::Ready => 0,
        InstanceState::Loading => 1,
        InstanceState::Draining => 2,
        InstanceState::Unloading => 3,
    };
    match snapshot.instances.iter().map(|(instance, _)| instance.state).min_by_key(rank) {
        Some(InstanceState::Ready) if snapshot.leases > 0 => ModelState::Ready,
        Some(InstanceState::Ready) => ModelState::Idle,
        Some(InstanceState::Loading) => ModelState::Loading,
        Some(InstanceState::Draining) => ModelState::Draining,
        Some(InstanceState::Unloading) => ModelState::Unloading,
        None if snapshot.is_preparing => ModelState::Loading,
        None if snapshot.failed.is_some() => ModelState::Failed,
        None => ModelState::Configured,
    }
}

/// The source of a model's files, and its type: as it was loaded, or would be loaded now.
#[must_use]
pub(super) fn origin(slot: &ModelSlot, snapshot: &ModelSnapshot) -> (String, String) {
    if let Some(loaded) = snapshot.instances.iter().find_map(|(_, model)| model.as_ref()) {
        return (loaded.source.clone(), loaded.model_type.to_string());
    }
    let settings = slot.settings();
    (settings.source(), settings.model_type.to_string())
}

fn model(state: &DaemonState, slot: &ModelSlot, now: Instant) -> ModelStatus {
    let snapshot = state.registry().model_snapshot(&slot.id);
    let loaded: Vec<_> =
        snapshot.instances.iter().filter_map(|(_, model)| model.as_ref()).collect();
    let counters = &slot.counters;
    let (source, model_type) = origin(slot, &snapshot);
    let waits = |quantile| {
        let of = [&counters.work.waits, &counters.texts.waits];
        of.map(|waits| waits.quantile_us(quantile)).into_iter().max().unwrap_or(0)
    };
    let until = |at: Instant| millis(at.saturating_duration_since(now));
    ModelStatus {
        id: slot.id.clone(),
        source,
        model_type,
        state: model_state(&snapshot),
        info: loaded.first().map(|model| model.info.clone()),
        failure: snapshot.failed.as_ref().map(|failed| chain(&*failed.cause)),
        retry_in_ms: snapshot.failed.as_ref().map(|failed| until(failed.retry_at)),
        copies: count(snapshot.instances.len()),
        memory_bytes: snapshot.instances.iter().map(|(instance, _)| instance.bytes).sum(),
        loads: load(&counters.loads),
        unloads: load(&counters.unloads),
        load_ms: load(&counters.load_ms),
        workers: count(loaded.iter().map(|model| model.workers()).sum()),
        leases: count(snapshot.leases),
        requests: load(&counters.requests),
        texts: load(&counters.work.texts) + load(&counters.texts.texts),
        tokens: load(&counters.work.tokens)
            + load(&counters.texts.input_tokens)
            + load(&counters.texts.tokens),
        batches: load(&counters.work.batches) + load(&counters.texts.steps),
        rows_inline: load(&counters.rows_inline),
        rows_shared: load(&counters.rows_shared),
        texts_cached: load(&counters.texts_cached),
        busy: count(snapshot.instances.iter().map(|(instance, _)| instance.uses).sum()),
        queued_texts: loaded.iter().map(|model| model.queued_texts() as u64).sum(),
        // A model has workers of one kind; those of the other kind have counted nothing.
        queue_wait_p50_us: waits(0.5),
        queue_wait_p99_us: waits(0.99),
        idle_ms: snapshot.last_used.map(|at| millis(now.saturating_duration_since(at))),
        unload_in_ms: snapshot.unload_at.map(until),
    }
}

fn cache(state: &DaemonState, settings: &CacheSettings) -> CacheStatus {
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
    } = state.cache().stats();
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

fn connection(caller: &Caller, now: Instant) -> ConnectionStatus {
    let pool = caller.pool.as_deref();
    ConnectionStatus {
        connection: caller.id.0,
        pid: caller.peer.pid,
        uid: caller.peer.uid,
        client: caller.name.clone(),
        age_ms: millis(now.saturating_duration_since(caller.since)),
        requests_in_flight: count(caller.in_flight.len()),
        segments: pool.map_or(0, SegmentPool::segments),
        segment_bytes: pool.map_or(0, SegmentPool::segment_bytes),
        held_bytes: pool.map_or(0, SegmentPool::held_bytes),
        credit_bytes: pool.map_or(0, SegmentPool::credit_bytes),
    }
}

/// The items of a list that fit, and the number of those left out.
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

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
