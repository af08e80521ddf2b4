//! Frames: a fixed header, a message, and raw bytes behind it.
//!
//! ```text
//! offset  0  magic        u16   0xB3ED
//!         2  version      u8    the protocol's version
//!         3  kind         u8    FrameKind
//!         4  flags        u16   0; others are refused
//!         6  descriptors  u16   how many file descriptors ride on the frame's first byte
//!         8  id           u64   the request's id; 0 where there is none
//!        16  body_len     u32   bytes of the message
//!        20  tail_len     u32   raw bytes behind it: texts or rows
//!        24  body, then tail
//! ```
//! All little-endian.

use crate::codec::{self, CodecError, MAX_BODY_BYTES};
use crate::handshake::PROTOCOL_VERSION;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The first two bytes of every frame, little-endian.
pub const MAGIC: u16 = 0xB3ED;

/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = 24;

/// The largest frame either side sends, header included.
pub const MAX_FRAME_BYTES: usize = 32 << 20;

/// What a frame carries. The numbers are part of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// Client: [`crate::Hello`], the first frame.
    Hello = 1,
    /// Client: [`crate::Request`], texts behind it.
    Request = 2,
    /// Client: no body; the request of this id is no longer wanted.
    Cancel = 3,
    /// Client: [`crate::Free`], slots that it no longer reads. Has no answer.
    Free = 4,
    /// Daemon: [`crate::Welcome`], the answer to Hello.
    Welcome = 16,
    /// Daemon: [`crate::Refusal`]; the connection ends behind it.
    Refusal = 17,
    /// Daemon: [`crate::Response`], inline rows behind it.
    Response = 18,
    /// Daemon: [`crate::SegmentAnnounce`], with its descriptor if it has one.
    Segment = 19,
    /// Daemon: [`crate::SegmentRetire`], a segment that will not be used again.
    Retire = 20,
    /// Daemon: [`crate::Event`], news of the request of this id, whose answer is still to come.
    Event = 21,
}

impl FrameKind {
    const ALL: [Self; 10] = [
        Self::Hello,
        Self::Request,
        Self::Cancel,
        Self::Free,
        Self::Welcome,
        Self::Refusal,
        Self::Response,
        Self::Segment,
        Self::Retire,
        Self::Event,
    ];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Only these frames may bring descriptors, and they bring at most one.
    const fn max_descriptors(self) -> u16 {
        match self {
            Self::Segment => 1,
            Self::Hello
            | Self::Request
            | Self::Cancel
            | Self::Free
            | Self::Welcome
            | Self::Refusal
            | Self::Response
            | Self::Retire
            | Self::Event => 0,
        }
    }

    /// All but this one carry a message.
    const fn may_have_body(self) -> bool {
        !matches!(self, Self::Cancel)
    }

    /// Only these have raw bytes behind the message.
    const fn may_have_tail(self) -> bool {
        matches!(self, Self::Request | Self::Response)
    }
}

/// One frame, whole.
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
    /// Raw bytes behind it.
    pub tail: Vec<u8>,
}

impl Frame {
    /// A frame around a message, with no tail and no descriptor.
    ///
    /// # Errors
    /// When the message is larger than [`MAX_BODY_BYTES`].
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

    /// The header for this body and tail, which may be sent without being put together first.
    ///
    /// # Errors
    /// When the frame breaks a rule that its reader would end the connection for.
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

/// What it carries is its sender's business, and long: only sizes are shown.
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

/// Bytes that are no frame. The connection ends: there is no way to find the next one.
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
    /// More descriptors ride on a frame than it may have.
    UnexpectedDescriptors {
        /// How many.
        count: u16,
    },
    /// A message is in a frame that may have none.
    UnexpectedBody,
    /// Raw bytes follow a message that may have none.
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
            Self::WrongMagic => f.write_str("the bytes are no emberd frame"),
            Self::WrongVersion { theirs } => write!(
                f,
                "the peer speaks protocol version {theirs}, this side version {PROTOCOL_VERSION}"
            ),
            Self::UnknownKind(kind) => write!(f, "there is no frame of kind {kind}"),
            Self::UnknownFlags(flags) => write!(f, "unknown frame flags {flags:#06x}"),
            Self::UnexpectedDescriptors { count } => {
                write!(f, "{count} descriptors ride on a frame that may not have so many")
            }
            Self::UnexpectedBody => f.write_str("a message is in a frame that may have none"),
            Self::UnexpectedTail => f.write_str("raw bytes follow a message that may have none"),
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

/// What stands before a frame. Both ends check it by the same rules.
#[derive(Debug, Clone, Copy)]
struct Header {
    kind: FrameKind,
    descriptors: u16,
    id: u64,
    body_len: usize,
    tail_len: usize,
}

impl Header {
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if u16_at(0) != MAGIC {
            return Err(FrameError::WrongMagic);
        }
        if bytes[2] != PROTOCOL_VERSION {
            return Err(FrameError::WrongVersion { theirs: bytes[2] });
        }
        let kind = FrameKind::from_number(bytes[3]).ok_or(FrameError::UnknownKind(bytes[3]))?;
        let flags = u16_at(4);
        if flags != 0 {
            return Err(FrameError::UnknownFlags(flags));
        }
        let mut id = [0; 8];
        id.copy_from_slice(&bytes[8..16]);
        Self {
            kind,
            descriptors: u16_at(6),
            id: u64::from_le_bytes(id),
            body_len: u32_at(16) as usize,
            tail_len: u32_at(20) as usize,
        }
        .checked()
    }

    fn checked(self) -> Result<Self, FrameError> {
        if self.descriptors > self.kind.max_descriptors() {
            return Err(FrameError::UnexpectedDescriptors { count: self.descriptors });
        }
        if self.body_len > 0 && !self.kind.may_have_body() {
            return Err(FrameError::UnexpectedBody);
        }
        if self.tail_len > 0 && !self.kind.may_have_tail() {
            return Err(FrameError::UnexpectedTail);
        }
        if self.body_len > MAX_BODY_BYTES {
            return Err(FrameError::BodyTooLarge { len_bytes: self.body_len as u64 });
        }
        let total = (HEADER_BYTES + self.body_len).saturating_add(self.tail_len);
        if total > MAX_FRAME_BYTES {
            return Err(FrameError::TooLarge { len_bytes: total as u64 });
        }
        Ok(self)
    }

    fn to_bytes(self) -> Result<[u8; HEADER_BYTES], FrameError> {
        let too_large = |len: usize| move |_| FrameError::TooLarge { len_bytes: len as u64 };
        let body_len = u32::try_from(self.body_len).map_err(too_large(self.body_len))?;
        let tail_len = u32::try_from(self.tail_len).map_err(too_large(self.tail_len))?;
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..2].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[2] = PROTOCOL_VERSION;
        bytes[3] = self.kind as u8;
        bytes[6..8].copy_from_slice(&self.descriptors.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.id.to_le_bytes());
        bytes[16..20].copy_from_slice(&body_len.to_le_bytes());
        bytes[20..24].copy_from_slice(&tail_len.to_le_bytes());
        Ok(bytes)
    }
}

/// Puts frames together from bytes as they come, in pieces of any size.
///
/// Holds what was fed and not yet taken; never reserves for bytes that a header only promises, and
/// keeps no large buffer once it is empty.
#[derive(Default)]
pub struct Decoder {
    /// Bytes fed and not yet taken, from `start` on.
    buffer: Vec<u8>,
    start: usize,
    header: Option<Header>,
}

/// Taken bytes are moved away once this many lie before the first one that counts.
const COMPACT_BYTES: usize = 64 << 10;

/// An empty buffer larger than this is given back: connections are many, and most are silent.
const KEEP_BYTES: usize = 1 << 20;

impl Decoder {
    /// Takes bytes from the wire.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start >= COMPACT_BYTES {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` until more bytes come.
    ///
    /// # Errors
    /// When the bytes break a rule of the protocol. The connection is of no use afterwards.
    #[expect(clippy::should_implement_trait, reason = "a fallible pull, not an iterator")]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let header = match self.header {
            Some(header) => header,
            None => {
                let Some(bytes) = self.buffer[self.start..].first_chunk() else {
                    return Ok(None);
                };
                let header = Header::parse(bytes)?;
                self.start += HEADER_BYTES;
                *self.header.insert(header)
            }
        };
        let len = header.body_len + header.tail_len;
        if self.buffer.len() - self.start < len {
            return Ok(None);
        }
        self.header = None;
        let body_end = self.start + header.body_len;
        let body = self.buffer[self.start..body_end].to_vec();
        let tail = self.take_tail(body_end, header.tail_len);
        if self.start == self.buffer.len() && self.buffer.capacity() > KEEP_BYTES {
            self.buffer = Vec::new();
            self.start = 0;
        }
        Ok(Some(Frame {
            kind: header.kind,
            descriptors: header.descriptors,
            id: header.id,
            body,
            tail,
        }))
    }

    /// Whether bytes are held that make no whole frame yet: an end of the stream now is a cut.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        self.header.is_some() || self.start < self.buffer.len()
    }

    /// How many bytes the frame in hand still lacks, so that a reader can ask for them at once.
    #[must_use]
    pub fn missing_bytes(&self) -> usize {
        let held = self.buffer.len() - self.start;
        let wanted = self.header.map_or(HEADER_BYTES, |h| h.body_len + h.tail_len);
        wanted.saturating_sub(held)
    }

    /// A large tail that ends the buffer is handed out in it, without a second allocation.
    fn take_tail(&mut self, at: usize, len: usize) -> Vec<u8> {
        self.start = at + len;
        if len >= COMPACT_BYTES && self.start == self.buffer.len() {
            let mut tail = std::mem::take(&mut self.buffer);
            self.start = 0;
            tail.drain(..at);
            return tail;
        }
        self.buffer[at..at + len].to_vec()
    }
}

/// The bytes are their sender's business, and many: only their number is shown.
impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("header", &self.header)
            .field("held_bytes", &(self.buffer.len() - self.start))
            .finish()
    }
}
