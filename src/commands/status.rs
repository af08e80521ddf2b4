//! `emberd status`: what the daemon holds and does.

use super::connect;
use crate::args::StatusArgs;
use crate::exit::CommandError;
use crate::output::{self, duration, size, table_text};
use emberd_protocol::{
    ConnectionStatus, DeviceStatus, LatencyStatus, LeaseStatus, ModelStatus, Status,
};
use nix::unistd::{Uid, User};
use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::time::Duration;

/// Home, and everything below it away.
const CLEAR_SCREEN: &str = "\x1b[H\x1b[J";

/// No look is nearer to the last than this, and none further.
const EVERY_SECONDS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

pub(super) fn run(args: &StatusArgs) -> Result<(), CommandError> {
    if args.watch && !EVERY_SECONDS.contains(&args.every) {
        let message = format!("--every {}: expected 0.1 to 3600 seconds", args.every);
        return Err(CommandError::Usage(message));
    }
    let client = connect(&args.reading.socket)?;
    loop {
        let status = client.status()?;
        if args.reading.json {
            // A line for each look, where there are many.
            let write = if args.watch { output::json_line } else { output::json };
            write(&status)?;
        } else {
            let clear = if args.watch && io::stdout().is_terminal() { CLEAR_SCREEN } else { "" };
            output::bytes(format!("{clear}{}", text(&status)).as_bytes())?;
        }
        if !args.watch {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs_f64(args.every));
    }
}

fn text(status: &Status) -> String {
    let daemon = &status.daemon;
    let mut text = format!(
        "emberd {}, process {}, up {}, {} resident, {} requests\n{} segments of {} ({}), {} at most\n",
        daemon.version,
        daemon.pid,
        duration(daemon.uptime_ms),
        size(daemon.resident_bytes),
        daemon.requests,
        status.segments.segments,
        size(status.segments.segment_bytes),
        status.segments.backend,
        size(status.segments.total_credit_bytes),
    );
    let cache = &status.cache;
    if cache.is_enabled {
        let asked = (cache.hits + cache.misses).max(1);
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "cache: {} of {} rows, {}, {} hits ({} %), {} misses, {} evicted, {} expired, {} on disk{}",
            cache.entries,
            cache.max_entries,
            size(cache.bytes),
            cache.hits,
            100 * cache.hits / asked,
            cache.misses,
            cache.evictions,
            cache.expired,
            cache.persisted_entries,
            match cache.persist_skipped {
                0 => String::new(),
                skipped => format!(" ({skipped} left out)"),
            },
        );
    }
    if let Some(failure) = &cache.failure {
        let _ = writeln!(text, "CACHE_ERROR: {failure}");
    }
    for model in &status.models {
        if let Some(failure) = &model.failure {
            let _ = writeln!(text, "{} cannot be loaded: {failure}", model.id);
        }
    }
    if let Some(error) = &daemon.reload_error {
        let _ = writeln!(text, "the last reload changed nothing: {error}");
    }
    let mut add = |header: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            text.push('\n');
            text.push_str(&table_text(header, &rows));
        }
    };
    add(
        &["DEVICE", "NAME", "MEMORY", "FREE", "FOR MODELS", "TAKEN"],
        status.devices.iter().map(device).collect(),
    );
    add(
        &[
            "MODEL",
            "FOR",
            "STATE",
            "ON",
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
        &["LEASE", "MODEL", "PROCESS", "USER", "CLIENT", "HELD FOR"],
        status.leases.iter().map(lease).collect(),
    );
    add(
        &["PROCESS", "USER", "CLIENT", "CONNECTED", "IN FLIGHT", "SEGMENTS", "HELD", "CREDIT"],
        status.connections.iter().map(connection).collect(),
    );
    let left_out =
        [(status.leases_left_out, "leases"), (status.connections_left_out, "connections")];
    for (count, what) in left_out.into_iter().filter(|(count, _)| *count > 0) {
        let _ = writeln!(text, "\n{count} more {what} are not listed");
    }
    let mut add = |header: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            text.push('\n');
            text.push_str(&table_text(header, &rows));
        }
    };
    add(
        &["REQUEST", "COUNT", "HALF WITHIN", "90 %", "99 %", "LONGEST"],
        status.latencies.iter().map(latency).collect(),
    );
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
        Some(ms) => format!("{} (next try in {})", model.state, duration(ms)),
        None => model.state.to_string(),
    };
    let in_time = |ms: Option<u64>| ms.map_or_else(none, |ms| format!("in {}", duration(ms)));
    vec![
        model.id.to_string(),
        methods(model),
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

/// What can be asked of it; before its first load only its type is known.
fn methods(model: &ModelStatus) -> String {
    let Some(info) = &model.info else { return model.model_type.clone() };
    info.methods.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
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

/// A user's name, or number where it has none.
fn user(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}
