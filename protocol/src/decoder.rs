//! From bytes to frames.

use crate::frame::Frame;
use crate::frame_error::FrameError;
use crate::header::{HEADER_BYTES, Header};
use std::fmt;

/// Assembles frames from bytes that arrive in chunks of any size.
///
/// It holds the bytes that were fed and not yet taken. It never reserves memory for bytes that a
/// header only announces, and keeps no large buffer once it is empty.
#[derive(Default)]
pub struct Decoder {
    /// Bytes fed and not yet taken, from `start` on.
    buffer: Vec<u8>,
    start: usize,
    header: Option<Header>,
}

/// Taken bytes are removed once this many lie before the first byte that is left.
const COMPACT_BYTES: usize = 64 << 10;

/// An empty buffer larger than this is freed: there are many connections, and most are idle.
const KEEP_BYTES: usize = 1 << 20;

impl Decoder {
    /// Adds bytes from the wire.
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

    /// The next complete frame, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// When the bytes break a rule of the protocol. The connection cannot be used any more.
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

    /// Whether it holds an incomplete frame: if the stream ends now, it was cut off.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        self.header.is_some() || self.start < self.buffer.len()
    }

    /// How many bytes the current frame still lacks, so that a reader can read them at once.
    #[must_use]
    pub fn missing_bytes(&self) -> usize {
        let held = self.buffer.len() - self.start;
        let wanted = self.header.map_or(HEADER_BYTES, |h| h.body_len + h.tail_len);
        wanted.saturating_sub(held)
    }

    /// Takes the tail. A large tail at the end of the buffer is returned in the buffer itself, without
    /// a second allocation.
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

/// Shows the number of bytes and not the bytes, which may be many, and confidential.
impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("header", &self.header)
            .field("held_bytes", &(self.buffer.len() - self.start))
            .finish()
    }
}
