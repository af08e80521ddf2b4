//! Why a connection ends.

use emberd_protocol::{CodecError, FrameError, FrameKind};
use std::io;

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    /// The socket failed.
    #[error("the socket failed")]
    Socket(#[from] io::Error),
    /// The peer broke the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer sent descriptors, which no client does.
    #[error("the peer sent descriptors")]
    Descriptors,
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Cut,
    /// The peer sent a message that cannot be read and that has no answer.
    #[error("a message cannot be read")]
    Codec(#[from] CodecError),
    /// The peer sent a kind of frame that only the daemon sends, or a second hello.
    #[error("a client may not send a frame of kind {0:?} here")]
    UnexpectedKind(FrameKind),
    /// The peer used an id for two requests at once.
    #[error("request id {0} is already in flight")]
    IdInUse(u64),
    /// A handler panicked while it wrote its answer.
    #[error("an answer was cut by a panic")]
    Defect,
}

impl ConnectionError {
    /// Whether the peer simply left, with answers still on their way.
    pub(super) fn is_departure(&self) -> bool {
        matches!(
            self,
            Self::Socket(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
                )
        )
    }
}
