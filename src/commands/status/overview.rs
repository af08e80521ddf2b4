//! The overview: what is loaded, within the given columns.

use crate::format::{counted, duration, fitted_table, size, wrap};
use emberd_protocol::{ModelStatus, Status};

/// The daemon, its problems and its models.
pub(super) fn text(status: &Status, columns: usize) -> String {
    let mut lines = summary(status);
    lines.extend(problems(status));
    let mut text = String::new();
    for line in lines.iter().flat_map(|line| wrap(line, columns)) {
        text.push_str(&line);
        text.push('\n');
    }
    if !status.models.is_empty() {
        text.push('\n');
        let header = ["MODEL", "KIND", "STATE", "DEVICE", "MEMORY", "LEASES", "UNLOADS"];
        let rows: Vec<_> = status.models.iter().map(row).collect();
        text.push_str(&fitted_table(&header, &rows, columns));
    }
    text
}

/// What is wrong, a line for each problem.
pub(super) fn problems(status: &Status) -> Vec<String> {
    let cache = status.cache.failure.iter().map(|failure| format!("CACHE_ERROR: {failure}"));
    let models = status.models.iter().filter_map(|model| {
        let failure = model.failure.as_ref()?;
        Some(format!("{} cannot be loaded: {failure}", model.id))
    });
    let reload = status.daemon.reload_error.iter();
    let reload = reload.map(|error| format!("the last reload changed nothing: {error}"));
    cache.chain(models).chain(reload).collect()
}

fn summary(status: &Status) -> Vec<String> {
    let (daemon, cache) = (&status.daemon, &status.cache);
    let leases = status.leases.len() as u64 + status.leases_left_out;
    let connections = status.connections.len() as u64 + status.connections_left_out;
    let mut lines = vec![
        format!(
            "emberd {}, process {}, up {}, {} resident, {}",
            daemon.version,
            daemon.pid,
            duration(daemon.uptime_ms),
            size(daemon.resident_bytes),
            counted(daemon.requests, "request")
        ),
        format!(
            "{}, {} (--wide lists them)",
            counted(leases, "lease"),
            counted(connections, "connection")
        ),
    ];
    if cache.is_enabled {
        let lookups = (cache.hits + cache.misses).max(1);
        lines.push(format!(
            "cache: {} of {} rows, {}, {} % hits",
            cache.entries,
            cache.max_entries,
            size(cache.bytes),
            100 * cache.hits / lookups
        ));
    }
    lines
}

fn row(model: &ModelStatus) -> Vec<String> {
    let none = || "-".to_owned();
    let state = match model.retry_in_ms.filter(|ms| *ms > 0) {
        Some(ms) => format!("{}, retry in {}", model.state, duration(ms)),
        None => model.state.to_string(),
    };
    vec![
        model.id.to_string(),
        super::kind(model),
        state,
        model.info.as_ref().map_or_else(none, |info| format!("{} x{}", info.device, model.workers)),
        if model.copies == 0 { none() } else { size(model.memory_bytes) },
        model.leases.to_string(),
        model.unload_in_ms.map_or_else(none, |ms| format!("in {}", duration(ms))),
    ]
}
