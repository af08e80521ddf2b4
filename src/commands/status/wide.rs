//! Everything that the daemon reports about itself, in tables of any width.

use super::overview;
use crate::format::{counted, duration, size, table};
use emberd_protocol::{
    ConnectionStatus, DeviceStatus, LatencyStatus, LeaseStatus, ModelStatus, Status,
};
use nix::unistd::{Uid, User};

/// The summary, the problems and all tables.
pub(super) fn text(status: &Status) -> String {
    let mut text = summary(status);
    for problem in overview::problems(status) {
        text.push_str(&problem);
        text.push('\n');
    }
    let mut add = |header: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            text.push('\n');
            text.push_str(&table(header, &rows));
        }
    };
    add(
        &["DEVICE", "NAME", "MEMORY", "FREE", "FOR MODELS", "USED"],
        status.devices.iter().map(device).collect(),
    );
    add(
        &[
            "MODEL",
            "KIND",
            "STATE",
            "DEVICE",
            "MEMORY",
            "LEASES",
            "LOADS",
            "REQUESTS",
            "TEXTS",
            "TOKENS",
            "CACHED",
            "QUEUED",
            "WAIT",
            "LAST USED",
            "UNLOADS",
        ],
        status.models.iter().map(model).collect(),
    );
    add(
        &["LEASE", "MODEL", "PROCESS", "USER", "CLIENT", "AGE"],
        status.leases.iter().map(lease).collect(),
    );
    add(
        &["PROCESS", "USER", "CLIENT", "AGE", "IN FLIGHT", "SEGMENTS", "HELD", "CREDIT"],
        status.connections.iter().map(connection).collect(),
    );
    add(
        &["REQUEST", "COUNT", "MEDIAN", "90 %", "99 %", "LONGEST"],
        status.latencies.iter().map(latency).collect(),
    );
    let left_out =
        [(status.leases_left_out, "leases"), (status.connections_left_out, "connections")];
    for (count, what) in left_out.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!("\n{count} more {what} are not listed\n"));
    }
    text
}

fn summary(status: &Status) -> String {
    let (daemon, segments, cache) = (&status.daemon, &status.segments, &status.cache);
    let mut text = format!(
        "emberd {}, process {}, up {}, {} resident, {}\n{} segments of {} ({}), {} at most\n",
        daemon.version,
        daemon.pid,
        duration(daemon.uptime_ms),
        size(daemon.resident_bytes),
        counted(daemon.requests, "request"),
        segments.segments,
        size(segments.segment_bytes),
        segments.backend,
        size(segments.total_credit_bytes),
    );
    if cache.is_enabled {
        let lookups = (cache.hits + cache.misses).max(1);
        text.push_str(&format!(
            "cache: {} of {} rows, {}, {} hits ({} %), {} misses, {} evicted, {} expired, {} on disk",
            cache.entries,
            cache.max_entries,
            size(cache.bytes),
            cache.hits,
            100 * cache.hits / lookups,
            cache.misses,
            cache.evictions,
            cache.expired,
            cache.persisted_entries,
        ));
        if cache.persist_skipped > 0 {
            text.push_str(&format!(" ({} not written)", cache.persist_skipped));
        }
        text.push('\n');
    }
    text
}

fn device(device: &DeviceStatus) -> Vec<String> {
    vec![
        device.device.clone(),
        device.name.clone(),
        size(device.total_bytes),
        size(device.free_bytes),
        size(device.budget_bytes),
        size(device.used_bytes),
    ]
}

fn model(model: &ModelStatus) -> Vec<String> {
    let none = || "-".to_owned();
    let state = match model.retry_in_ms.filter(|ms| *ms > 0) {
        Some(ms) => format!("{} (retry in {})", model.state, duration(ms)),
        None => model.state.to_string(),
    };
    let in_time = |ms: Option<u64>| ms.map_or_else(none, |ms| format!("in {}", duration(ms)));
    vec![
        model.id.to_string(),
        super::kind(model),
        state,
        model.info.as_ref().map_or_else(none, |info| format!("{} x{}", info.device, model.workers)),
        if model.copies == 0 { none() } else { size(model.memory_bytes) },
        model.leases.to_string(),
        format!("{}/{}", model.loads, model.unloads),
        model.requests.to_string(),
        model.texts.to_string(),
        model.tokens.to_string(),
        model.texts_cached.to_string(),
        model.queued_texts.to_string(),
        format!("{} us", model.queue_wait_p50_us),
        model.idle_ms.map_or_else(none, |ms| format!("{} ago", duration(ms))),
        in_time(model.unload_in_ms),
    ]
}

fn lease(lease: &LeaseStatus) -> Vec<String> {
    vec![
        lease.lease.to_string(),
        lease.model.to_string(),
        lease.pid.to_string(),
        user(lease.uid),
        lease.client.clone(),
        duration(lease.age_ms),
    ]
}

fn connection(connection: &ConnectionStatus) -> Vec<String> {
    vec![
        connection.pid.to_string(),
        user(connection.uid),
        connection.client.clone(),
        duration(connection.age_ms),
        connection.requests_in_flight.to_string(),
        format!("{} ({})", connection.segments, size(connection.segment_bytes)),
        size(connection.held_bytes),
        size(connection.credit_bytes),
    ]
}

fn latency(latency: &LatencyStatus) -> Vec<String> {
    let us = |us: u64| if us < 10_000 { format!("{us} us") } else { duration(us / 1000) };
    vec![
        latency.kind.clone(),
        latency.count.to_string(),
        us(latency.p50_us),
        us(latency.p90_us),
        us(latency.p99_us),
        us(latency.max_us),
    ]
}

/// A user's name, or the number of one without a name.
fn user(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}
