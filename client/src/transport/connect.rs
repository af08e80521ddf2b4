//! From a path to a connection that the daemon has welcomed.
//!
//! The kernel bounds connecting and reading by the handshake's timeout. It has no signal for a
//! daemon that is about to listen: neither for the socket of a process that starts, nor for a
//! listener that outlives a daemon which refuses (systemd's). So these are polled, until a deadline.

use super::handshake::Handshake;
use crate::error::ConnectError;
use crate::options::ClientOptions;
use crate::wire::connection::Connection;
use crate::wire::reader::Reader;
use crate::wire::socket::Socket;
use emberd_protocol::Hello;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time between two attempts to reach a daemon that is stopping or not back yet.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Connects and shakes hands. If a daemon is stopping, polls until the next daemon listens, until
/// nobody does, or until the handshake's timeout.
pub(crate) fn connect(
    path: &Path,
    options: &ClientOptions,
) -> Result<Arc<Connection>, ConnectError> {
    let until = Instant::now() + options.handshake_timeout;
    poll(path, options, until, ConnectError::is_stopping)
}

/// Connects to a path that had a daemon before. If the daemon may be restarting, polls until it is
/// back or until the deadline.
pub(super) fn reconnect(
    path: &Path,
    options: &ClientOptions,
    until: Instant,
) -> Result<Arc<Connection>, ConnectError> {
    poll(path, options, until, ConnectError::may_be_restarting)
}

/// Sleeps before connecting to a daemon that is known to be stopping.
pub(super) fn pause() {
    std::thread::sleep(POLL_INTERVAL);
}

fn poll(
    path: &Path,
    options: &ClientOptions,
    until: Instant,
    is_temporary: fn(&ConnectError) -> bool,
) -> Result<Arc<Connection>, ConnectError> {
    loop {
        match connect_once(path, options) {
            Err(error) if is_temporary(&error) && Instant::now() < until => pause(),
            result => return result,
        }
    }
}

fn connect_once(path: &Path, options: &ClientOptions) -> Result<Arc<Connection>, ConnectError> {
    let deadline = Instant::now() + options.handshake_timeout;
    let handshake = Handshake { path, options, deadline };
    let socket = Socket::connect(path, deadline).map_err(|error| handshake.failed(error))?;
    let is_trusted = socket.peer_uid().is_some_and(|uid| options.trusts(uid));
    let hello = Hello {
        name: options.name.clone(),
        accepts_segments: options.accepts_segments && is_trusted,
    };
    let mut reader = Reader::new();
    let welcome = handshake.run(&socket, &mut reader, &hello)?;
    Ok(Arc::new(Connection::new(socket, path, welcome, hello.accepts_segments, reader)))
}
