//! The reading half: bytes to frames, descriptors to segments.

use crate::builder::Options;
use crate::error::{ConnectError, ProtocolError};
use crate::segment::Segment;
use crate::socket::{ControlBuffer, Socket};
use emberd_protocol::{
    Decoder, Frame, FrameError, FrameKind, Refusal, RefusalReason, SegmentAnnounce, SegmentHandle,
    SegmentId, Welcome,
};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;

/// What comes from the daemon, and what of it outlives a read.
pub(crate) struct Reader {
    pub(crate) decoder: Decoder,
    buffer: Vec<u8>,
    control: ControlBuffer,
    pub(crate) descriptors: VecDeque<OwnedFd>,
    /// By number; `None` where one was retired, since numbers are not used again.
    segments: HashMap<SegmentId, Option<Segment>>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("segments", &self.segments).finish_non_exhaustive()
    }
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

    /// The answer to the hello, which has to be whole before the deadline.
    pub(crate) fn welcome(
        &mut self,
        socket: &Socket,
        path: &Path,
        options: &Options,
        deadline: Instant,
    ) -> Result<Welcome, ConnectError> {
        let not_emberd = |source| ConnectError::NotEmberd { path: path.to_owned(), source };
        let frame = loop {
            match self.decoder.next() {
                Ok(Some(frame)) => break frame,
                Ok(None) => {}
                Err(error @ FrameError::WrongVersion { .. }) => {
                    return Err(ConnectError::Version { message: error.to_string() });
                }
                Err(error) => return Err(not_emberd(error.into())),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(timeout(path, options));
            }
            socket.set_read_timeout(Some(left)).map_err(|error| connect_error(path, error))?;
            match self.fill(socket) {
                Ok(0) => return Err(connect_error(path, io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(timeout(path, options));
                }
                Err(error) => return Err(connect_error(path, error)),
            }
        };
        match frame.kind {
            FrameKind::Welcome => frame.decode().map_err(|error| not_emberd(error.into())),
            FrameKind::Refusal => {
                let refusal: Refusal = frame.decode().map_err(|error| not_emberd(error.into()))?;
                Err(match refusal.reason {
                    RefusalReason::Version => ConnectError::Version { message: refusal.message },
                    RefusalReason::NotPermitted
                    | RefusalReason::TooManyConnections
                    | RefusalReason::ShuttingDown
                    | RefusalReason::NoHello => ConnectError::Refused(refusal),
                })
            }
            _ => Err(not_emberd(ProtocolError::OutOfPlace("an answer without a question"))),
        }
    }

    /// A segment that is in use.
    pub(crate) fn segment(&self, segment: SegmentId) -> Result<&Segment, ProtocolError> {
        match self.segments.get(&segment) {
            Some(Some(segment)) => Ok(segment),
            Some(None) => Err(ProtocolError::Slot("the segment was retired")),
            None => Err(ProtocolError::Slot("the segment was never announced")),
        }
    }

    /// Unmaps a segment for which no view is left.
    pub(crate) fn retire(&mut self, segment: SegmentId) -> Result<(), ProtocolError> {
        match self.segments.get_mut(&segment).and_then(Option::take) {
            Some(_) => Ok(()),
            None => {
                let why = "it is retired, but was not in use";
                Err(ProtocolError::Segment { segment, why })
            }
        }
    }

    /// Maps a segment that is new.
    pub(crate) fn announce(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
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

pub(crate) fn connect_error(path: &Path, source: io::Error) -> ConnectError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ConnectError::NoDaemon { path }
        }
        io::ErrorKind::PermissionDenied => ConnectError::PermissionDenied { path },
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset => ConnectError::Closed { path },
        _ => ConnectError::Socket { path, source },
    }
}

pub(crate) fn timeout(path: &Path, options: &Options) -> ConnectError {
    ConnectError::Timeout { path: path.to_owned(), after: options.handshake_timeout }
}
