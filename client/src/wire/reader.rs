//! The reading half of a connection: bytes become frames, descriptors become segments.

use super::socket::{ControlBuffer, Socket};
use crate::error::ProtocolError;
use crate::segment::Segment;
use emberd_protocol::{Decoder, Frame, FrameError, SegmentAnnounce, SegmentHandle, SegmentId};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;

/// What came from the daemon and outlives a read.
pub(crate) struct Reader {
    decoder: Decoder,
    buffer: Vec<u8>,
    control: ControlBuffer,
    descriptors: VecDeque<OwnedFd>,
    /// `None` if the segment was retired: ids are not used again.
    segments: HashMap<SegmentId, Option<Segment>>,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self {
            decoder: Decoder::default(),
            buffer: vec![0; READ_BYTES],
            control: ControlBuffer::new(),
            descriptors: VecDeque::new(),
            segments: HashMap::new(),
        }
    }

    /// Reads what is there; 0 at the end of the stream.
    pub(crate) fn fill(&mut self, socket: &Socket) -> io::Result<usize> {
        let len = socket.read(&mut self.buffer, &mut self.control, &mut self.descriptors)?;
        self.decoder.feed(&self.buffer[..len]);
        Ok(len)
    }

    /// The next complete frame.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        self.decoder.next()
    }

    /// Once all complete frames are taken: no descriptor may be left. Descriptors come with the
    /// first byte of their frame, so one is allowed if a frame is incomplete.
    pub(super) fn check_descriptors(&self) -> Result<(), ProtocolError> {
        if self.descriptors.len() > usize::from(self.decoder.is_mid_frame()) {
            return Err(ProtocolError::Descriptors);
        }
        Ok(())
    }

    /// A segment that is in use.
    pub(super) fn segment(&self, segment: SegmentId) -> Result<&Segment, ProtocolError> {
        match self.segments.get(&segment) {
            Some(Some(segment)) => Ok(segment),
            Some(None) => Err(ProtocolError::Slot("the segment was retired")),
            None => Err(ProtocolError::Slot("the segment was never announced")),
        }
    }

    /// Drops a segment, which unmaps it if no rows in it are left.
    pub(super) fn retire(&mut self, segment: SegmentId) -> Result<(), ProtocolError> {
        match self.segments.get_mut(&segment).and_then(Option::take) {
            Some(_) => Ok(()),
            None => {
                let why = "it is retired, but was not in use";
                Err(ProtocolError::Segment { segment, why })
            }
        }
    }

    /// Opens a new segment.
    pub(super) fn announce(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
        let descriptor = match frame.descriptors {
            0 => None,
            _ => Some(self.descriptors.pop_front().ok_or(ProtocolError::Descriptors)?),
        };
        let SegmentAnnounce { segment, len_bytes, handle } = frame.decode()?;
        let opened = match (handle, &descriptor) {
            (SegmentHandle::Descriptor, Some(fd)) => Segment::sealed(segment, fd, len_bytes)?,
            (SegmentHandle::Name(name), None) => Segment::named(segment, &name, len_bytes)?,
            _ => return Err(ProtocolError::Descriptors),
        };
        match self.segments.insert(segment, Some(opened)) {
            None => Ok(()),
            Some(_) => Err(ProtocolError::Segment { segment, why: "it was announced twice" }),
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("segments", &self.segments).finish_non_exhaustive()
    }
}
