//! `emberd status`: what the daemon holds and does.

use super::{again, connect};
use crate::args::Reading;
use crate::exit::CommandError;
use crate::output::{self, duration, size};
use emberd_protocol::{ConnectionStatus, LeaseStatus, ModelStatus};

pub(super) fn run(args: &Reading) -> Result<(), CommandError> {
    let client = connect(&args.socket)?;
    let status = again(|| client.status())?;
    if args.json {
        return output::json(&status);
    }
    let daemon = &status.daemon;
    output::line(&format!(
        "emberd {}, process {}, up {}, {} resident, {} requests; {} segments of {} ({})",
        daemon.version,
        daemon.pid,
        duration(daemon.uptime_ms),
        size(daemon.resident_bytes),
        daemon.requests,
        status.segments.segments,
        size(status.segments.segment_bytes),
        status.segments.backend,
    ))?;
    output::line("")?;
    let header =
        ["MODEL", "STATE", "ON", "WEIGHTS", "LEASES", "REQUESTS", "TEXTS", "QUEUED", "LAST USED"];
    output::table(&header, &status.models.iter().map(model).collect::<Vec<_>>())?;
    if !status.leases.is_empty() {
        output::line("")?;
        let rows: Vec<_> = status.leases.iter().map(lease).collect();
        output::table(&["LEASE", "MODEL", "PROCESS", "USER", "CLIENT", "HELD FOR"], &rows)?;
    }
    output::line("")?;
    let rows: Vec<_> = status.connections.iter().map(connection).collect();
    output::table(
        &["PROCESS", "USER", "CLIENT", "CONNECTED", "IN FLIGHT", "SEGMENTS", "HELD"],
        &rows,
    )
}

fn model(model: &ModelStatus) -> Vec<String> {
    let none = || "-".to_owned();
    vec![
        model.id.to_string(),
        model.state.to_string(),
        model.info.as_ref().map_or_else(none, |info| format!("{} x{}", info.device, model.workers)),
        model.info.as_ref().map_or_else(none, |info| size(info.weight_bytes)),
        model.leases.to_string(),
        model.requests.to_string(),
        model.texts.to_string(),
        model.queued_texts.to_string(),
        model.idle_ms.map_or_else(none, |ms| format!("{} ago", duration(ms))),
    ]
}

fn lease(lease: &LeaseStatus) -> Vec<String> {
    vec![
        lease.lease.to_string(),
        lease.model.to_string(),
        lease.pid.to_string(),
        lease.uid.to_string(),
        lease.client.clone(),
        duration(lease.age_ms),
    ]
}

fn connection(connection: &ConnectionStatus) -> Vec<String> {
    vec![
        connection.pid.to_string(),
        connection.uid.to_string(),
        connection.client.clone(),
        duration(connection.age_ms),
        connection.requests_in_flight.to_string(),
        format!("{} ({})", connection.segments, size(connection.segment_bytes)),
        size(connection.held_bytes),
    ]
}
