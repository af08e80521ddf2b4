//! The handshake: which clients are let in, and what both sides tell each other.

use crate::connection::credentials::peer_of;
use crate::connection::error::ConnectionError;
use crate::connection::frames::{FrameReader, FrameWriter, split};
use crate::models::lease::ConnectionId;
use crate::request::peer::Peer;
use crate::request::state::DaemonState;
use crate::settings::{AccessGroup, Settings};
use emberd_protocol::{
    Frame, FrameError, FrameKind, Hello, Limits, MAX_FRAME_BYTES, MAX_TEXTS, Refusal,
    RefusalReason, Welcome,
};
use interprocess::local_socket::tokio::Stream;
use std::time::Duration;
use tokio::time::timeout;

/// Why a client is refused that comes while the daemon stops.
const STOPPING: &str = "the daemon is stopping";

/// A client that was let in.
pub(super) struct Welcomed {
    pub(super) peer: Peer,
    pub(super) hello: Hello,
    pub(super) reader: FrameReader,
    pub(super) writer: FrameWriter,
}

/// Lets a client in; `None` if it was refused, left, or took too long.
pub(super) async fn welcome(
    state: &DaemonState,
    stream: Stream,
    id: ConnectionId,
) -> Option<Welcomed> {
    let peer = match peer_of(&stream) {
        Ok(peer) => peer,
        Err(error) => {
            tracing::warn!(connection = id.0, %error, "a peer without credentials was refused");
            return None;
        }
    };
    let (mut reader, writer) = split(stream);
    let patience = state.settings().limits.handshake;
    let mut draining = state.watch_draining();
    let shaken = tokio::select! {
        biased;
        shaken = timeout(patience, handshake(state, &mut reader, &writer, peer)) => shaken,
        // A daemon that stops does not wait for hellos.
        () = async { drop(draining.wait_for(|is_draining| *is_draining).await) } => {
            // The refusal tells a client that came for the next daemon to try again.
            let _ = refuse(&writer, RefusalReason::ShuttingDown, STOPPING).await;
            return None;
        }
    };
    match shaken {
        Ok(Ok(hello)) => Some(Welcomed { peer, hello: hello?, reader, writer }),
        Ok(Err(error)) => {
            tracing::debug!(connection = id.0, pid = peer.pid, %error, "no handshake");
            None
        }
        Err(_) => {
            tracing::debug!(connection = id.0, pid = peer.pid, "no handshake in time");
            None
        }
    }
}

/// Tells a client that the daemon has no room for its connection.
pub(crate) async fn turn_away(stream: Stream, patience: Duration) {
    let (_reader, writer) = split(stream);
    let message = "the daemon has reached its limit of connections: try again later";
    let refusal = refuse(&writer, RefusalReason::TooManyConnections, message);
    // A client that does not read it finds the connection closed.
    let _ = timeout(patience, refusal).await;
}

/// Reads the hello and answers it; `None` if the client was refused or left.
async fn handshake(
    state: &DaemonState,
    reader: &mut FrameReader,
    writer: &FrameWriter,
    peer: Peer,
) -> Result<Option<Hello>, ConnectionError> {
    let first = match reader.next().await {
        Ok(Some(frame)) => frame,
        Ok(None) => return Ok(None),
        Err(ConnectionError::Frame(error @ FrameError::WrongVersion { .. })) => {
            refuse(writer, RefusalReason::Version, &error.to_string()).await?;
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let hello = (first.kind == FrameKind::Hello).then(|| first.decode::<Hello>().ok()).flatten();
    let Some(hello) = hello else {
        refuse(writer, RefusalReason::NoHello, "the first frame must be a Hello").await?;
        return Ok(None);
    };
    if !is_permitted(state, peer).await {
        let message = match &state.settings().access {
            None => format!("user {} may not use this daemon", peer.uid),
            Some(AccessGroup { name, .. }) => {
                format!("user {} may not use this daemon: it is not in group {name}", peer.uid)
            }
        };
        refuse(writer, RefusalReason::NotPermitted, &message).await?;
        return Ok(None);
    }
    if state.is_draining() {
        refuse(writer, RefusalReason::ShuttingDown, STOPPING).await?;
        return Ok(None);
    }
    let welcome = welcome_message(&state.settings());
    writer.write(&Frame::message(FrameKind::Welcome, 0, &welcome)?).await?;
    Ok(Some(hello))
}

/// Whether a peer may use this daemon. Looking up a group may take a network, so that is left to a
/// thread that may block.
async fn is_permitted(state: &DaemonState, peer: Peer) -> bool {
    if peer.is_admin() {
        return true;
    }
    let Some(group) = state.settings().access.clone() else { return false };
    tokio::task::spawn_blocking(move || peer.is_member(&group)).await.unwrap_or(false)
}

fn welcome_message(settings: &Settings) -> Welcome {
    Welcome {
        daemon_version: env!("CARGO_PKG_VERSION").into(),
        daemon_pid: std::process::id(),
        backend: settings.segments.backend,
        limits: Limits {
            max_texts: MAX_TEXTS,
            max_frame_bytes: u32::try_from(MAX_FRAME_BYTES).unwrap_or(u32::MAX),
            max_requests_in_flight: settings.limits.requests_in_flight,
            max_leases: settings.limits.leases,
            inline_bytes: settings.segments.inline_bytes,
            credit_bytes: settings.segments.credit_bytes,
        },
    }
}

/// Sends a refusal; the caller drops the connection.
async fn refuse(
    writer: &FrameWriter,
    reason: RefusalReason,
    message: &str,
) -> Result<(), ConnectionError> {
    let refusal = Refusal { reason, message: message.into() };
    writer.write(&Frame::message(FrameKind::Refusal, 0, &refusal)?).await
}
