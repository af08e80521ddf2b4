//! One connection, shared by many threads.
//!
//! There is no reading thread. Of the threads that wait for answers one reads (the leader) and
//! hands to each other what is theirs; when its own answer has come, another takes over.

use crate::builder::Options;
use crate::error::{ConnectError, Error, ProtocolError, TransportError};
use crate::lock;
use crate::segment::{Rows, Segment};
use crate::socket::{ControlBuffer, Socket};
use crate::view::{Embeddings, Values};
use emberd_protocol::{
    Decoder, ElementType, Embedded, ErrorCode, Failure, Frame, FrameError, FrameKind, Free, Hello,
    Limits, MAX_FRAME_BYTES, Place, Refusal, RefusalReason, Request, Response, SegmentAnnounce,
    SegmentHandle, SegmentId, SegmentRetire, SlotRef, Welcome, rows_len_bytes,
};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;

/// A full queue of the listener is tried again after this time.
const RETRY_PAUSE: Duration = Duration::from_millis(2);

/// An answer, its rows taken out.
#[derive(Debug)]
pub(crate) enum Answer {
    Rows(Embeddings),
    Other(Response),
}

/// A connected, welcomed stream.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    path: PathBuf,
    /// The process that made it: a forked child neither uses nor releases anything of it.
    process: u32,
    welcome: Welcome,
    /// Bytes that must go before the next frame.
    writer: Mutex<Vec<u8>>,
    /// Frames of droppers that could not get the writer.
    deferred: Mutex<Vec<u8>>,
    waiting: Mutex<Waiting>,
    changed: Condvar,
    reader: Mutex<Reader>,
    /// Slots that live views show: where each begins and ends.
    live: Mutex<BTreeMap<(SegmentId, u64), u64>>,
}

#[derive(Debug, Default)]
struct Waiting {
    last_id: u64,
    /// Requests without an answer yet, and answers that nobody has taken yet.
    answers: HashMap<u64, Option<Answer>>,
    has_leader: bool,
    dead: Option<Death>,
}

#[derive(Debug, Clone)]
enum Death {
    Transport(TransportError),
    Protocol(ProtocolError),
}

impl From<Death> for Error {
    fn from(death: Death) -> Self {
        match death {
            Death::Transport(error) => error.into(),
            Death::Protocol(error) => error.into(),
        }
    }
}

impl From<ProtocolError> for Death {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

struct Reader {
    decoder: Decoder,
    buffer: Vec<u8>,
    control: ControlBuffer,
    descriptors: VecDeque<OwnedFd>,
    segments: HashMap<SegmentId, Segment>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("segments", &self.segments).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects and shakes hands.
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Arc<Self>, ConnectError> {
        let deadline = Instant::now() + options.handshake_timeout;
        loop {
            match Self::try_open(path, options) {
                // A full queue of the listener may look like a success until the first write.
                Err(ConnectError::Socket { source, .. })
                    if matches!(
                        source.kind(),
                        io::ErrorKind::NotConnected | io::ErrorKind::WouldBlock
                    ) && Instant::now() < deadline =>
                {
                    std::thread::sleep(RETRY_PAUSE);
                }
                result => return result,
            }
        }
    }

    fn try_open(path: &Path, options: &Options) -> Result<Arc<Self>, ConnectError> {
        let failed = |source: io::Error| connect_error(path, source);
        let socket = Socket::connect(path).map_err(failed)?;
        let is_trusted = socket.peer_uid().is_some_and(|uid| options.trusts(uid));
        let hello = Hello {
            name: options.name.clone(),
            accepts_segments: options.accepts_segments && is_trusted,
        };
        let frame = Frame::message(FrameKind::Hello, 0, &hello).map_err(|error| {
            failed(io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))
        })?;
        let said = socket.write_all(&[&frame.to_bytes()]);
        let mut reader = Reader::new();
        let answer = reader.welcome(&socket, path, options.handshake_timeout);
        let welcome = match (said, answer) {
            // A daemon that is full refuses before it reads anything, and closes.
            (Err(_), Err(refused @ ConnectError::Refused(_))) => return Err(refused),
            (Err(error), _) => return Err(failed(error)),
            (Ok(()), answer) => answer?,
        };
        socket.set_read_timeout(None).map_err(failed)?;
        Ok(Arc::new(Self {
            socket,
            path: path.to_owned(),
            process: std::process::id(),
            welcome,
            writer: Mutex::default(),
            deferred: Mutex::default(),
            waiting: Mutex::default(),
            changed: Condvar::new(),
            reader: Mutex::new(reader),
            live: Mutex::default(),
        }))
    }

    /// Whether it can be used: it is alive, and this process has made it.
    pub(crate) fn is_usable(&self) -> bool {
        self.process == std::process::id() && lock(&self.waiting).dead.is_none()
    }

    pub(crate) fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.welcome.limits
    }

    /// Asks and waits for the answer. A failure of the request is an error.
    pub(crate) fn call(
        self: &Arc<Self>,
        request: &Request,
        tail: Vec<u8>,
    ) -> Result<Answer, Error> {
        let mut frame = Frame::message(FrameKind::Request, 0, request).map_err(too_large)?;
        frame.tail = tail;
        if frame.len_bytes() > MAX_FRAME_BYTES {
            return Err(too_large(frame.len_bytes()));
        }
        frame.id = self.register()?;
        let id = frame.id;
        if let Err(error) = self.send(&frame) {
            self.die(&self.lost(&error));
        }
        match self.wait(id)? {
            Answer::Other(Response::Failed(failure)) => Err(failure.into()),
            answer => Ok(answer),
        }
    }

    /// Sends a request whose answer nobody waits for. Never blocks.
    pub(crate) fn tell(&self, request: &Request) {
        if !self.is_usable() {
            return;
        }
        let id = {
            let mut waiting = lock(&self.waiting);
            waiting.last_id += 1;
            waiting.last_id
        };
        if let Ok(frame) = Frame::message(FrameKind::Request, id, request) {
            self.send_later(&frame);
        }
    }

    /// Gives a slot back. Never blocks.
    pub(crate) fn free(&self, slot: SlotRef) {
        if self.process != std::process::id() {
            return;
        }
        lock(&self.live).remove(&(slot.segment, slot.offset));
        if let Ok(frame) = Frame::message(FrameKind::Free, 0, &Free { slots: vec![slot] }) {
            self.send_later(&frame);
        }
    }

    /// A number for a new request, once there is room for it.
    fn register(&self) -> Result<u64, Error> {
        let most = self.limits().max_requests_in_flight.max(1) as usize;
        let mut waiting = lock(&self.waiting);
        loop {
            if let Some(death) = &waiting.dead {
                return Err(death.clone().into());
            }
            if waiting.answers.len() < most {
                waiting.last_id += 1;
                let id = waiting.last_id;
                waiting.answers.insert(id, None);
                return Ok(id);
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn send(&self, frame: &Frame) -> io::Result<()> {
        let header = frame.header().map_err(io::Error::other)?;
        let mut before = lock(&self.writer);
        before.append(&mut lock(&self.deferred));
        self.socket.write_all(&[&before, &header, &frame.body, &frame.tail])?;
        before.clear();
        Ok(())
    }

    /// Sends at once what can be sent at once; the rest goes before the next frame.
    fn send_later(&self, frame: &Frame) {
        let bytes = frame.to_bytes();
        let mut before = match self.writer.try_lock() {
            Ok(before) => before,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                lock(&self.deferred).extend_from_slice(&bytes);
                return;
            }
        };
        before.append(&mut lock(&self.deferred));
        before.extend_from_slice(&bytes);
        match self.socket.write_now(&before) {
            Ok(written) => drop(before.drain(..written)),
            // A dead connection holds nothing that could be freed.
            Err(_) => before.clear(),
        }
    }

    /// Waits for an answer, reading for all while no other thread does.
    fn wait(self: &Arc<Self>, id: u64) -> Result<Answer, Error> {
        let mut waiting = lock(&self.waiting);
        loop {
            if let Some(answer) = waiting.answers.get_mut(&id).and_then(Option::take) {
                waiting.answers.remove(&id);
                drop(waiting);
                // Room for another request, or the lead, is free.
                self.changed.notify_all();
                return Ok(answer);
            }
            if let Some(death) = &waiting.dead {
                let death = death.clone();
                waiting.answers.remove(&id);
                return Err(death.into());
            }
            if waiting.has_leader {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            waiting.has_leader = true;
            drop(waiting);
            let read = self.read_some();
            if let Err(death) = read {
                self.die(&death);
            }
            waiting = lock(&self.waiting);
            waiting.has_leader = false;
            if waiting.answers.len() > 1 {
                self.changed.notify_all();
            }
        }
    }

    /// Reads once, and hands out every frame that is whole.
    fn read_some(self: &Arc<Self>) -> Result<(), Death> {
        let mut reader = lock(&self.reader);
        if reader.fill(&self.socket).map_err(|error| self.lost(&error))? == 0 {
            let path = self.path.clone();
            return Err(Death::Transport(TransportError::Disconnected { path }));
        }
        while let Some(frame) = reader.decoder.next().map_err(ProtocolError::from)? {
            match frame.kind {
                FrameKind::Response => {
                    let id = frame.id;
                    let answer = self.answer(&reader, frame)?;
                    let mut waiting = lock(&self.waiting);
                    match waiting.answers.get_mut(&id) {
                        Some(place) => *place = Some(answer),
                        // Nobody waits: an answer to `tell`, or to a call that gave up.
                        None => {
                            drop(waiting);
                            drop(answer);
                        }
                    }
                }
                FrameKind::Segment => reader.announce(&frame)?,
                FrameKind::Retire => {
                    let retired: SegmentRetire = frame.decode().map_err(ProtocolError::from)?;
                    reader.segments.remove(&retired.segment);
                }
                FrameKind::Hello
                | FrameKind::Request
                | FrameKind::Cancel
                | FrameKind::Free
                | FrameKind::Welcome
                | FrameKind::Refusal => {
                    return Err(ProtocolError::OutOfPlace("a frame of another kind").into());
                }
            }
        }
        // Descriptors come with the first byte of their frame: all of them have found theirs.
        if !reader.descriptors.is_empty() && !reader.decoder.is_mid_frame() {
            return Err(ProtocolError::Descriptors.into());
        }
        Ok(())
    }

    fn answer(
        self: &Arc<Self>,
        reader: &Reader,
        mut frame: Frame,
    ) -> Result<Answer, ProtocolError> {
        let tail = std::mem::take(&mut frame.tail);
        let response: Response = frame.decode()?;
        let Response::Embedded(embedded) = response else {
            if !tail.is_empty() {
                return Err(ProtocolError::OutOfPlace("bytes behind an answer"));
            }
            return Ok(Answer::Other(response));
        };
        let values = self.values(reader, &embedded, &tail)?;
        if values.count() != embedded.rows as usize * embedded.dimension as usize {
            return Err(ProtocolError::Slot("the values are not as many as the rows need"));
        }
        Ok(Answer::Rows(Embeddings::new(embedded, values)))
    }

    fn values(
        self: &Arc<Self>,
        reader: &Reader,
        embedded: &Embedded,
        tail: &[u8],
    ) -> Result<Values, ProtocolError> {
        let ElementType::F32 = embedded.element;
        let slot = match embedded.place {
            Place::Inline => {
                let (values, rest) = tail.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(ProtocolError::Slot("the rows end within a value"));
                }
                return Ok(Values::Inline(values.iter().map(|v| f32::from_le_bytes(*v)).collect()));
            }
            Place::Slot(slot) => slot,
        };
        let wanted = rows_len_bytes(embedded.rows, embedded.dimension, embedded.element);
        if wanted != Some(slot.len_bytes) || !tail.is_empty() {
            return Err(ProtocolError::Slot("the slot's length is not that of the rows"));
        }
        let segment = reader
            .segments
            .get(&slot.segment)
            .ok_or(ProtocolError::Slot("the segment was never announced"))?;
        match segment.rows(&slot)? {
            Rows::Mapped(rows) => {
                self.claim(&slot)?;
                Ok(Values::shared(rows, slot, self))
            }
            Rows::Copied(values) => {
                self.free(slot);
                Ok(Values::Inline(values))
            }
        }
    }

    /// Notes that a view shows a slot, unless another view shows a part of it.
    fn claim(&self, slot: &SlotRef) -> Result<(), ProtocolError> {
        let mut live = lock(&self.live);
        let end = slot.offset + slot.len_bytes; // checked against the segment's end before
        let overlapping = live
            .range((slot.segment, 0)..(slot.segment, end))
            .next_back()
            .is_some_and(|(_, other_end)| *other_end > slot.offset);
        if overlapping {
            return Err(ProtocolError::Slot("the slot is shown by a living view"));
        }
        live.insert((slot.segment, slot.offset), end);
        Ok(())
    }

    fn die(&self, death: &Death) {
        self.socket.shutdown();
        lock(&self.waiting).dead.get_or_insert_with(|| death.clone());
        self.changed.notify_all();
    }

    fn lost(&self, error: &io::Error) -> Death {
        let path = self.path.clone();
        Death::Transport(match error.kind() {
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected => TransportError::Disconnected { path },
            kind => TransportError::Socket { path, kind },
        })
    }
}

impl Reader {
    fn new() -> Self {
        Self {
            decoder: Decoder::default(),
            buffer: vec![0; READ_BYTES],
            control: ControlBuffer::new(),
            descriptors: VecDeque::new(),
            segments: HashMap::new(),
        }
    }

    /// Reads what is there; 0 at the end of the stream.
    fn fill(&mut self, socket: &Socket) -> io::Result<usize> {
        let len = socket.read(&mut self.buffer, &mut self.control, &mut self.descriptors)?;
        self.decoder.feed(&self.buffer[..len]);
        Ok(len)
    }

    fn welcome(
        &mut self,
        socket: &Socket,
        path: &Path,
        patience: Duration,
    ) -> Result<Welcome, ConnectError> {
        let not_emberd = |source| ConnectError::NotEmberd { path: path.to_owned(), source };
        let too_late = || ConnectError::Timeout { path: path.to_owned(), after: patience };
        let deadline = Instant::now() + patience;
        let frame = loop {
            match self.decoder.next() {
                Ok(Some(frame)) => break frame,
                Ok(None) => {}
                Err(error @ FrameError::WrongVersion { .. }) => {
                    return Err(ConnectError::Version { message: error.to_string() });
                }
                Err(error) => return Err(not_emberd(error.into())),
            }
            // One that sends byte after byte gets no more time for it.
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(too_late());
            }
            socket.set_read_timeout(Some(left)).map_err(|error| connect_error(path, error))?;
            match self.fill(socket) {
                Ok(0) => return Err(connect_error(path, io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(too_late()),
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

    fn announce(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
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
        match self.segments.insert(segment, opened) {
            None => Ok(()),
            Some(_) => Err(ProtocolError::Segment { segment, why: "it was announced twice" }),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Closing the descriptor ends it for the daemon, unless a forked child still has it open.
        if self.process == std::process::id() {
            self.socket.shutdown();
        }
    }
}

fn connect_error(path: &Path, source: io::Error) -> ConnectError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ConnectError::NoDaemon { path }
        }
        io::ErrorKind::PermissionDenied => ConnectError::PermissionDenied { path },
        _ => ConnectError::Socket { path, source },
    }
}

fn too_large(what: impl std::fmt::Display) -> Error {
    let message = format!(
        "the request is too large for a frame of {MAX_FRAME_BYTES} bytes ({what}): send fewer \
         texts at once"
    );
    Failure::new(ErrorCode::LimitExceeded, message).into()
}
