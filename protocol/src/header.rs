//! The fixed header of a frame. Both ends check it by the same rules.

use crate::frame_error::FrameError;
use crate::frame_kind::FrameKind;
use crate::handshake::PROTOCOL_VERSION;
use crate::limits::{MAX_BODY_BYTES, MAX_FRAME_BYTES};

/// The first two bytes of every frame, little-endian.
pub const MAGIC: u16 = 0xB3ED;

/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = 24;

/// A header; see [`Frame`](crate::Frame) for its fields.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) kind: FrameKind,
    pub(crate) descriptors: u16,
    pub(crate) id: u64,
    pub(crate) body_len: usize,
    pub(crate) tail_len: usize,
}

impl Header {
    /// Parses and checks a header.
    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
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

    /// Checks the rules for the frame's kind, and the limits.
    pub(crate) fn checked(self) -> Result<Self, FrameError> {
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

    /// The header on the wire.
    pub(crate) fn to_bytes(self) -> Result<[u8; HEADER_BYTES], FrameError> {
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
