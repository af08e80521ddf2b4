//! One connection, shared by many threads.
//!
//! There is no reading thread. Of the threads that wait for answers one reads (the leader) and
//! hands to each other what is theirs; when its own answer has come, another takes over.

use crate::builder::Options;
use crate::error::{ConnectError, Error, ProtocolError, TransportError};
use crate::lock;
use crate::reader::{Reader, connect_error, timeout};
use crate::segment::Rows;
use crate::socket::Socket;
use crate::view::{Embeddings, Values};
use emberd_protocol::{
    ElementType, Embedded, ErrorCode, Failure, Frame, FrameKind, Free, Hello, Limits,
    MAX_FRAME_BYTES, Place, Refusal, RefusalReason, Request, Response, SegmentId, SegmentRetire,
    SlotRef, Welcome, rows_len_bytes,
};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// A daemon that is stopping is tried again after this time.
const RESTART_PAUSE: Duration = Duration::from_millis(20);

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
    /// Whether the daemon may announce segments.
    accepts_segments: bool,
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

impl Connection {
    /// Connects and shakes hands.
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Arc<Self>, ConnectError> {
        let deadline = Instant::now() + options.handshake_timeout;
        loop {
            match Self::try_open(path, options, deadline) {
                // A full queue of the listener looks like a success until the first write.
                Err(ConnectError::Socket { source, .. })
                    if matches!(
                        source.kind(),
                        io::ErrorKind::NotConnected | io::ErrorKind::WouldBlock
                    ) =>
                {
                    if Instant::now() >= deadline {
                        return Err(timeout(path, options));
                    }
                    std::thread::sleep(RETRY_PAUSE);
                }
                // Soon nobody listens there any more, or (under systemd) the next one does.
                Err(ConnectError::Refused(Refusal {
                    reason: RefusalReason::ShuttingDown, ..
                })) if Instant::now() < deadline => std::thread::sleep(RESTART_PAUSE),
                result => return result,
            }
        }
    }

    fn try_open(
        path: &Path,
        options: &Options,
        deadline: Instant,
    ) -> Result<Arc<Self>, ConnectError> {
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
        match socket.write_all(&[&frame.to_bytes()]) {
            // It hung up before it was greeted, and may have said why.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) => {}
            result => result.map_err(failed)?,
        }
        let mut reader = Reader::new();
        let welcome = reader.welcome(&socket, path, options, deadline)?;
        socket.set_read_timeout(None).map_err(failed)?;
        Ok(Arc::new(Self {
            socket,
            path: path.to_owned(),
            process: std::process::id(),
            welcome,
            accepts_segments: hello.accepts_segments,
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
        drop(before);
        self.flush();
        Ok(())
    }

    /// Sends at once what can be sent at once; the rest goes before the next frame.
    fn send_later(&self, frame: &Frame) {
        lock(&self.deferred).extend_from_slice(&frame.to_bytes());
        self.flush();
    }

    /// Sends what droppers left, unless another thread has the writer: that one looks here after
    /// it has given the writer back, so that nothing is left for a call that may never come.
    fn flush(&self) {
        while !lock(&self.deferred).is_empty() {
            let mut before = match self.writer.try_lock() {
                Ok(before) => before,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            before.append(&mut lock(&self.deferred));
            match self.socket.write_now(&before) {
                Ok(written) => drop(before.drain(..written)),
                // A dead connection holds nothing that could be freed.
                Err(_) => before.clear(),
            }
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
                // Memory of a user who is not trusted could change while it is read.
                FrameKind::Segment if !self.accepts_segments => {
                    return Err(ProtocolError::OutOfPlace("a segment").into());
                }
                FrameKind::Segment => reader.announce(&frame)?,
                FrameKind::Retire => {
                    let SegmentRetire { segment } = frame.decode().map_err(ProtocolError::from)?;
                    if self.is_live(segment) {
                        let why = "it is retired while its rows are held";
                        return Err(ProtocolError::Segment { segment, why }.into());
                    }
                    reader.retire(segment)?;
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
        // Descriptors come with the first byte of their frame: all of them have found theirs, but
        // for the one that a frame may have of which the rest is yet to come.
        if reader.descriptors.len() > usize::from(reader.decoder.is_mid_frame()) {
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
        let segment = reader.segment(slot.segment)?;
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

    /// Whether a view shows a part of a segment.
    fn is_live(&self, segment: SegmentId) -> bool {
        lock(&self.live).range((segment, 0)..=(segment, u64::MAX)).next().is_some()
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

impl Drop for Connection {
    fn drop(&mut self) {
        // Closing the descriptor ends it for the daemon, unless a forked child still has it open.
        if self.process == std::process::id() {
            self.socket.shutdown();
        }
    }
}

fn too_large(what: impl std::fmt::Display) -> Error {
    let message = format!(
        "the request is too large for a frame of {MAX_FRAME_BYTES} bytes ({what}): send fewer \
         texts at once"
    );
    Failure::new(ErrorCode::LimitExceeded, message).into()
}
