//! Why bytes are not a frame.

use crate::handshake::PROTOCOL_VERSION;
use crate::limits::{MAX_BODY_BYTES, MAX_FRAME_BYTES};
use std::fmt;

/// Bytes that are not a frame. The connection ends: there is no way to find the next frame.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The first bytes are not emberd's.
    WrongMagic,
    /// The peer speaks another version of the protocol.
    WrongVersion {
        /// The version in the frame.
        theirs: u8,
    },
    /// No frame has this number.
    UnknownKind(u8),
    /// Flags are set that this version does not know.
    UnknownFlags(u16),
    /// A frame has more descriptors than its kind may have.
    UnexpectedDescriptors {
        /// How many ride on it.
        count: u16,
    },
    /// A frame has a body, and its kind may not have one.
    UnexpectedBody,
    /// Raw bytes follow in a frame that may not have any.
    UnexpectedTail,
    /// The message is larger than [`MAX_BODY_BYTES`].
    BodyTooLarge {
        /// The size that the header claims for it.
        len_bytes: u64,
    },
    /// The frame is larger than [`MAX_FRAME_BYTES`].
    TooLarge {
        /// The size that the header claims.
        len_bytes: u64,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongMagic => f.write_str("the bytes are not an emberd frame"),
            Self::WrongVersion { theirs } => write!(
                f,
                "the peer speaks protocol version {theirs}, this side version {PROTOCOL_VERSION}"
            ),
            Self::UnknownKind(kind) => write!(f, "no frame has the kind {kind}"),
            Self::UnknownFlags(flags) => write!(f, "unknown frame flags {flags:#06x}"),
            Self::UnexpectedDescriptors { count } => {
                write!(f, "a frame has {count} descriptors, more than its kind may have")
            }
            Self::UnexpectedBody => {
                f.write_str("a frame has a body, and its kind may not have one")
            }
            Self::UnexpectedTail => {
                f.write_str("a frame has a tail, and its kind may not have one")
            }
            Self::BodyTooLarge { len_bytes } => {
                write!(f, "a message of {len_bytes} bytes is over the limit of {MAX_BODY_BYTES}")
            }
            Self::TooLarge { len_bytes } => {
                write!(f, "a frame of {len_bytes} bytes is over the limit of {MAX_FRAME_BYTES}")
            }
        }
    }
}

impl std::error::Error for FrameError {}
