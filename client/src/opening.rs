//! From a path to a connection that the daemon has welcomed.

use crate::builder::Options;
use crate::connection::Connection;
use crate::error::ConnectError;
use crate::reader::{Reader, connect_error, timeout};
use crate::socket::Socket;
use emberd_protocol::{Frame, FrameKind, Hello, Refusal, RefusalReason};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A daemon that is stopping, or not yet back, is tried again after this time.
pub(crate) const RESTART_PAUSE: Duration = Duration::from_millis(20);

/// A full queue of the listener is tried again after this time.
const RETRY_PAUSE: Duration = Duration::from_millis(2);

/// Connects and shakes hands. A daemon that is stopping is waited for: soon nobody listens there
/// any more, or (under systemd) the next one does.
pub(crate) fn open(path: &Path, options: &Options) -> Result<Arc<Connection>, ConnectError> {
    let until = Instant::now() + options.handshake_timeout;
    loop {
        match open_once(path, options) {
            Err(error) if is_stopping(&error) && Instant::now() < until => {
                std::thread::sleep(RESTART_PAUSE);
            }
            result => return result,
        }
    }
}

/// Connects where there was a daemon before, which may be on its way back until then.
pub(crate) fn open_again(
    path: &Path,
    options: &Options,
    until: Instant,
) -> Result<Arc<Connection>, ConnectError> {
    loop {
        match open_once(path, options) {
            Err(error) if is_absent(&error) && Instant::now() < until => {
                std::thread::sleep(RESTART_PAUSE);
            }
            result => return result,
        }
    }
}

fn is_stopping(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Refused(Refusal { reason: RefusalReason::ShuttingDown, .. }))
}

/// Whether a daemon that is restarted looks like this for a moment: no socket, nobody behind it,
/// somebody who hangs up since he ends, or says so.
pub(crate) fn is_absent(error: &ConnectError) -> bool {
    is_stopping(error)
        || matches!(error, ConnectError::NoDaemon { .. } | ConnectError::Closed { .. })
}

fn open_once(path: &Path, options: &Options) -> Result<Arc<Connection>, ConnectError> {
    let deadline = Instant::now() + options.handshake_timeout;
    loop {
        match try_open(path, options, deadline) {
            // A full queue of the listener looks like a success until the first write.
            Err(ConnectError::Socket { source, .. })
                if matches!(
                    source.kind(),
                    io::ErrorKind::NotConnected | io::ErrorKind::WouldBlock
                ) =>
            {
                if Instant::now() >= deadline {
                    return Err(timeout(path, options));
                }
                std::thread::sleep(RETRY_PAUSE);
            }
            result => return result,
        }
    }
}

fn try_open(
    path: &Path,
    options: &Options,
    deadline: Instant,
) -> Result<Arc<Connection>, ConnectError> {
    let failed = |source: io::Error| connect_error(path, source);
    let socket = Socket::connect(path).map_err(failed)?;
    let is_trusted = socket.peer_uid().is_some_and(|uid| options.trusts(uid));
    let hello = Hello {
        name: options.name.clone(),
        accepts_segments: options.accepts_segments && is_trusted,
    };
    let frame = Frame::message(FrameKind::Hello, 0, &hello)
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error.to_string())))?;
    match socket.write_all(&[&frame.to_bytes()]) {
        // It hung up before it was greeted, and may have said why.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ) => {}
        result => result.map_err(failed)?,
    }
    let mut reader = Reader::new();
    let welcome = reader.welcome(&socket, path, options, deadline)?;
    socket.set_read_timeout(None).map_err(failed)?;
    Ok(Arc::new(Connection::new(socket, path, welcome, hello.accepts_segments, reader)))
}
