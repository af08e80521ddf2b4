//! Everything that can go wrong between a program and its daemon.

use crate::environment::serve_command;
use emberd_protocol::{
    CodecError, ErrorCode, Failure, FrameError, PROTOCOL_VERSION, Refusal, RefusalReason, SegmentId,
};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// Why a call failed.
#[expect(clippy::error_impl_error, reason = "the one error of this package's API")]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection, and none could be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection died during the call, and the request could not be repeated or was not meant
    /// to be ([`crate::ClientBuilder::repeat_requests`]). The daemon may or may not have carried it
    /// out. The next call connects again.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The daemon violated the protocol. If a single response was of the wrong kind, the connection
    /// stays open. Otherwise it was closed, and the next call connects again.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The request failed; the connection stays open.
    #[error(transparent)]
    Daemon(#[from] Failure),
}

impl Error {
    /// The error code, if there is one: failures of the daemon and refused connections have codes.
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
    /// No process listens at the path.
    #[error("no daemon at {}: start it with `{}`", path.display(), serve_command(path))]
    NoDaemon {
        /// The last path that was tried.
        path: PathBuf,
    },
    /// This user may not open the socket.
    #[error(
        "permission denied at {}: the socket belongs to another user: ask its owner to name a \
         group of yours in access.group, or start a daemon of your own with `emberd serve`",
        path.display()
    )]
    PermissionDenied {
        /// The socket.
        path: PathBuf,
    },
    /// The daemon speaks another version of the protocol.
    #[error(
        "version mismatch: this program speaks version {PROTOCOL_VERSION} of the protocol, but {message}: \
         use the same release on both sides, and restart the daemon after an upgrade"
    )]
    Version {
        /// The daemon's version, in words.
        message: String,
    },
    /// The daemon refused this connection.
    #[error("the daemon refused the connection: {}", .0.message)]
    Refused(Refusal),
    /// The daemon did not answer in time.
    #[error("the daemon at {} did not answer within {after:?}", path.display())]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// How long the client waited.
        after: Duration,
    },
    /// The process at the socket is not emberd.
    #[error("the process at {} is not an emberd daemon: {source}", path.display())]
    NotEmberd {
        /// The socket.
        path: PathBuf,
        /// How it violated the protocol.
        source: ProtocolError,
    },
    /// The daemon closed the connection without a response.
    #[error(
        "the daemon at {} closed the connection during the handshake: its log may say why",
        path.display()
    )]
    Closed {
        /// The socket.
        path: PathBuf,
    },
    /// No process listened at the path, and no daemon could be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The system refused.
    #[error("cannot connect to {}: {source}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl ConnectError {
    /// The error for a failed system call on the socket at a path.
    pub(crate) fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Self::NoDaemon { path },
            io::ErrorKind::PermissionDenied => Self::PermissionDenied { path },
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset => Self::Closed { path },
            _ => Self::Socket { path, source },
        }
    }

    /// Whether the daemon refused the connection because it is stopping.
    pub(crate) fn is_stopping(&self) -> bool {
        matches!(self, Self::Refused(Refusal { reason: RefusalReason::ShuttingDown, .. }))
    }

    /// Whether a daemon that restarts may look like this for a moment: it says that it is stopping,
    /// it hangs up because it ends, or the path has no socket or no listener.
    pub(crate) fn may_be_restarting(&self) -> bool {
        self.is_stopping() || matches!(self, Self::NoDaemon { .. } | Self::Closed { .. })
    }

    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::PermissionDenied { .. } => Some(ErrorCode::PermissionDenied),
            Self::Refused(refusal) => match refusal.reason {
                RefusalReason::NotPermitted => Some(ErrorCode::PermissionDenied),
                RefusalReason::TooManyConnections => Some(ErrorCode::LimitExceeded),
                RefusalReason::ShuttingDown => Some(ErrorCode::ShuttingDown),
                RefusalReason::Version | RefusalReason::NoHello => None,
            },
            Self::NoDaemon { .. }
            | Self::Version { .. }
            | Self::Timeout { .. }
            | Self::NotEmberd { .. }
            | Self::Closed { .. }
            | Self::Start(_)
            | Self::Socket { .. } => None,
        }
    }
}

/// Why no daemon could be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is no program to start.
    #[error(
        "no emberd program to start, looked for {}: build it with `cargo build --release` and put \
         it into $PATH, or set $EMBERD_BIN",
        join(looked_for)
    )]
    NotFound {
        /// The paths that were tried.
        looked_for: Vec<PathBuf>,
    },
    /// The program ended without starting a daemon.
    #[error("{} did not start a daemon ({status}): {message}", program.display())]
    Failed {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of its standard error.
        message: String,
    },
    /// No daemon answered in time.
    #[error("no daemon answered at {} within {after:?} of starting one", path.display())]
    TookTooLong {
        /// The socket.
        path: PathBuf,
        /// How long the client waited.
        after: Duration,
    },
    /// The system refused a file or a process.
    #[error("cannot start a daemon at {}: {what}: {source}", path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// The operation that failed.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

/// How a connection died.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The daemon closed it, or ended.
    #[error("the daemon at {} closed the connection: the next call connects again", path.display())]
    Disconnected {
        /// The socket.
        path: PathBuf,
    },
    /// A system call on the socket failed.
    #[error("the connection to {} failed ({kind}): the next call connects again", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        kind: io::ErrorKind,
    },
}

/// How the daemon violated the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// Bytes that are not a frame.
    #[error("it sent bytes that are not a frame: {0}")]
    Frame(#[from] FrameError),
    /// A message that cannot be decoded.
    #[error("it sent a message that cannot be read: {0}")]
    Message(String),
    /// A frame or a response that is not allowed at this point.
    #[error("it sent {0} where the protocol does not allow it")]
    OutOfPlace(&'static str),
    /// A descriptor is missing, or too many came.
    #[error("it sent descriptors that were not announced, or announced one and sent none")]
    Descriptors,
    /// A segment that cannot be trusted.
    #[error("segment {segment} cannot be used: {why}")]
    Segment {
        /// The segment.
        segment: SegmentId,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Rows whose slot or length is invalid.
    #[error("it sent rows that cannot be used: {0}")]
    Slot(&'static str),
}

impl From<CodecError> for ProtocolError {
    fn from(error: CodecError) -> Self {
        Self::Message(error.to_string())
    }
}

fn join(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}
