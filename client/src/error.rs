//! What can go wrong between a program and its daemon.

use crate::builder::serve_command;
use crate::start::StartError;
use emberd_protocol::{
    CodecError, ErrorCode, Failure, FrameError, PROTOCOL_VERSION, Refusal, RefusalReason, SegmentId,
};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a call did not give what was asked for.
#[expect(clippy::error_impl_error, reason = "the one error of this package's API")]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection, and none could be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection died during the call, which could not be repeated or was not to be
    /// ([`crate::ClientBuilder::repeat_requests`]). Whether the daemon did what was asked is not
    /// known; the next call connects again.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The daemon broke the protocol. Unless a single answer was of the wrong kind, the connection
    /// was closed, and the next call connects again.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The request failed, and the connection goes on.
    #[error(transparent)]
    Daemon(#[from] Failure),
}

impl Error {
    /// The error code, where there is one: of the daemon's failures, and of a refused connection.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Daemon(failure) => Some(failure.code),
            Self::Connect(error) => error.code(),
            Self::Transport(_) | Self::Protocol(_) => None,
        }
    }
}

/// Why no connection could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody listens there.
    #[error("no daemon at {}: start it with `{}`", path.display(), serve_command(path))]
    NoDaemon {
        /// The last path that was tried.
        path: PathBuf,
    },
    /// The socket is not for this user.
    #[error(
        "permission denied at {}: it belongs to another user: ask them to name a group of yours in \
         access.group, or start a daemon of your own with `emberd serve`",
        path.display()
    )]
    PermissionDenied {
        /// The path.
        path: PathBuf,
    },
    /// The daemon speaks another version of the protocol.
    #[error(
        "version mismatch: this program speaks version {PROTOCOL_VERSION} of the protocol, but {message}: \
         use the same release on both sides, and restart the daemon after an upgrade"
    )]
    Version {
        /// What the other side said.
        message: String,
    },
    /// The daemon does not take this connection.
    #[error("the daemon refused the connection: {}", .0.message)]
    Refused(Refusal),
    /// The daemon said nothing in time.
    #[error("the daemon at {} did not answer within {after:?}", path.display())]
    Timeout {
        /// The path.
        path: PathBuf,
        /// How long it was waited for.
        after: Duration,
    },
    /// Something answers there that is no emberd.
    #[error("what answers at {} is no emberd daemon: {source}", path.display())]
    NotEmberd {
        /// The path.
        path: PathBuf,
        /// What it did.
        source: ProtocolError,
    },
    /// The daemon hung up without a word.
    #[error(
        "the daemon at {} closed the connection before it welcomed this program: its log may say why",
        path.display()
    )]
    Closed {
        /// The path.
        path: PathBuf,
    },
    /// Nobody listened there, and starting a daemon did not help.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The system refused.
    #[error("cannot connect to {}: {source}", path.display())]
    Socket {
        /// The path.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl ConnectError {
    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::PermissionDenied { .. } => Some(ErrorCode::PermissionDenied),
            Self::Refused(refusal) => match refusal.reason {
                RefusalReason::NotPermitted => Some(ErrorCode::PermissionDenied),
                RefusalReason::TooManyConnections => Some(ErrorCode::LimitExceeded),
                RefusalReason::ShuttingDown => Some(ErrorCode::ShuttingDown),
                RefusalReason::Version | RefusalReason::NoHello => None,
            },
            _ => None,
        }
    }
}

/// How a connection died.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The daemon ended it, or ended itself.
    #[error("the daemon at {} closed the connection: the next call connects again", path.display())]
    Disconnected {
        /// The path.
        path: PathBuf,
    },
    /// The system failed.
    #[error("the connection to {} failed ({kind}): the next call connects again", path.display())]
    Socket {
        /// The path.
        path: PathBuf,
        /// How.
        kind: io::ErrorKind,
    },
}

/// What the daemon did that the protocol does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// Bytes that are no frame.
    #[error("it sent bytes that are no frame: {0}")]
    Frame(#[from] FrameError),
    /// A message that cannot be read.
    #[error("it sent a message that cannot be read: {0}")]
    Message(String),
    /// A frame, or an answer, in the wrong place.
    #[error("it sent {0} where that has no place")]
    OutOfPlace(&'static str),
    /// A descriptor is missing, or too many came.
    #[error("it sent descriptors that were not announced, or announced one and sent none")]
    Descriptors,
    /// A segment that cannot be trusted.
    #[error("segment {segment} cannot be used: {why}")]
    Segment {
        /// Which.
        segment: SegmentId,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Rows that do not lie where they are said to.
    #[error("rows are said to lie where they cannot: {0}")]
    Slot(&'static str),
}

impl From<CodecError> for ProtocolError {
    fn from(error: CodecError) -> Self {
        Self::Message(error.to_string())
    }
}
