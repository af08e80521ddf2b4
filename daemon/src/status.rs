//! What the daemon tells of itself.

use crate::daemon::Shared;
use crate::lease::Usage;
use crate::registry::{ModelSlot, Seen};
use crate::session::Connection;
use crate::sync::lock;
use emberd_protocol::{
    ConnectionStatus, DaemonStatus, LeaseStatus, ModelState, ModelStatus, SegmentStatus, Status,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A model's state in the protocol's words.
pub(crate) fn state(seen: &Seen, leases: usize) -> ModelState {
    match seen {
        Seen::Configured => ModelState::Configured,
        Seen::Loading => ModelState::Loading,
        Seen::Failed(_) => ModelState::Failed,
        Seen::Loaded(_) if leases > 0 => ModelState::Ready,
        Seen::Loaded(_) => ModelState::Idle,
    }
}

/// Everything at this moment.
pub(crate) fn of(shared: &Shared) -> Status {
    let now = Instant::now();
    let connections: Vec<Arc<Connection>> =
        lock(&shared.connections).values().map(Arc::clone).collect();
    let leases = {
        let table = lock(&shared.leases);
        table.iter().map(|(id, lease)| (id, lease.clone())).collect::<Vec<_>>()
    };
    let leases = leases.into_iter().filter_map(|(id, lease)| {
        let holder = connections.iter().find(|connection| connection.id == lease.connection)?;
        Some(LeaseStatus {
            lease: id,
            model: lease.model,
            pid: holder.peer.pid,
            uid: holder.peer.uid,
            client: holder.name.clone(),
            age_ms: millis(now - lease.since),
        })
    });
    Status {
        daemon: DaemonStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_ms: millis(now - shared.started),
            resident_bytes: resident_bytes(),
            requests: load(&shared.requests),
        },
        leases: leases.collect(),
        models: shared
            .registry
            .iter()
            .map(|slot| {
                let usage = lock(&shared.leases).usage(&slot.id);
                model(slot, usage, now)
            })
            .collect(),
        connections: connections.iter().map(|c| connection(c, now)).collect(),
        segments: SegmentStatus {
            backend: shared.settings.segments.backend,
            segments: shared.credit.segments(),
            segment_bytes: shared.credit.used_bytes(),
            total_credit_bytes: shared.credit.limit_bytes(),
        },
    }
}

fn model(slot: &ModelSlot, usage: Usage, now: Instant) -> ModelStatus {
    let seen = slot.seen();
    let loaded = match &seen {
        Seen::Loaded(model) => Some(model),
        Seen::Configured | Seen::Loading | Seen::Failed(_) => None,
    };
    let counters = &slot.counters;
    ModelStatus {
        id: slot.id.clone(),
        model_type: slot.settings.model_type.clone(),
        source: slot.settings.source.to_string(),
        state: state(&seen, usage.leases),
        info: loaded.map(|model| model.info.clone()),
        failure: match &seen {
            Seen::Failed(failure) => Some(crate::error::chain(failure.as_ref())),
            Seen::Configured | Seen::Loading | Seen::Loaded(_) => None,
        },
        loads: load(&counters.loads),
        load_ms: load(&counters.load_ms),
        workers: loaded.map_or(0, |model| count(model.workers())),
        leases: count(usage.leases),
        requests: load(&counters.requests),
        texts: load(&counters.work.texts),
        tokens: load(&counters.work.tokens),
        batches: load(&counters.work.batches),
        rows_inline: load(&counters.rows_inline),
        rows_shared: load(&counters.rows_shared),
        queued_texts: loaded.map_or(0, |model| model.queue.queued_texts() as u64),
        idle_ms: usage.last_used.map(|at| millis(now.saturating_duration_since(at))),
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
    }
}

/// Resident memory of this process, from the kernel; 0 where it does not tell.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_whitespace().nth(1)?.parse::<u64>().ok());
    let page_bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    let page_bytes = page_bytes.and_then(|bytes| u64::try_from(bytes).ok());
    pages.zip(page_bytes).map_or(0, |(pages, bytes)| pages * bytes)
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
