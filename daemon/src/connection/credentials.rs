//! Asks the kernel who is at the other end of a socket.

use crate::request::peer::Peer;
use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::StreamCommon;
use std::io;

/// Asks the kernel for the process at the other end.
///
/// # Errors
/// When the kernel does not name the process's user: such a peer is not let in.
pub(super) fn peer_of(stream: &Stream) -> io::Result<Peer> {
    let credentials = stream.peer_creds()?;
    let uid = credentials.euid().ok_or_else(|| io::Error::other("the peer's user is unknown"))?;
    let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
    Ok(Peer { pid, uid })
}
