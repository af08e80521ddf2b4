//! Frames: a fixed header, a message, and raw bytes after the message.
//!
//! ```text
//! offset  0  magic        u16   0xB3ED
//!         2  version      u8    the protocol's version
//!         3  kind         u8    FrameKind
//!         4  flags        u16   0; other values are refused
//!         6  descriptors  u16   how many file descriptors ride on the frame's first byte
//!         8  id           u64   the request's id; 0 if there is none
//!        16  body_len     u32   bytes of the message
//!        20  tail_len     u32   raw bytes after it: texts or rows
//!        24  body, then tail
//! ```
//! All little-endian.

use crate::codec::{self, CodecError};
use crate::frame_error::FrameError;
use crate::frame_kind::FrameKind;
use crate::header::{HEADER_BYTES, Header};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One complete frame.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub kind: FrameKind,
    /// Descriptors that ride along.
    pub descriptors: u16,
    /// The request that it belongs to.
    pub id: u64,
    /// The encoded message.
    pub body: Vec<u8>,
    /// Raw bytes after the message.
    pub tail: Vec<u8>,
}

impl Frame {
    /// A frame around a message, with no tail and no descriptor.
    ///
    /// # Errors
    /// When the message is larger than [`MAX_BODY_BYTES`](crate::MAX_BODY_BYTES).
    pub fn message<T: Serialize>(
        kind: FrameKind,
        id: u64,
        message: &T,
    ) -> Result<Self, CodecError> {
        Ok(Self { kind, descriptors: 0, id, body: codec::encode(message)?, tail: Vec::new() })
    }

    /// The message in the body.
    ///
    /// # Errors
    /// When the body is not exactly one `T`.
    pub fn decode<'a, T: Deserialize<'a>>(&'a self) -> Result<T, CodecError> {
        codec::decode(&self.body)
    }

    /// Bytes on the wire, header included.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        HEADER_BYTES + self.body.len() + self.tail.len()
    }

    /// The header for this body and tail, which can be sent without concatenating them.
    ///
    /// # Errors
    /// When the frame breaks a rule for which its reader would end the connection.
    pub fn header(&self) -> Result<[u8; HEADER_BYTES], FrameError> {
        Header {
            kind: self.kind,
            descriptors: self.descriptors,
            id: self.id,
            body_len: self.body.len(),
            tail_len: self.tail.len(),
        }
        .checked()?
        .to_bytes()
    }

    /// Header, body and tail in one piece.
    ///
    /// # Panics
    /// When [`Frame::header`] fails: the caller knows that the frame keeps the rules.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let header = self.header().expect("the caller knows that the frame keeps the rules");
        [&header[..], &self.body, &self.tail].concat()
    }
}

/// Shows sizes and not the content, which may be long, and confidential.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("kind", &self.kind)
            .field("descriptors", &self.descriptors)
            .field("id", &self.id)
            .field("body_len", &self.body.len())
            .field("tail_len", &self.tail.len())
            .finish()
    }
}
