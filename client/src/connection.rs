//! One connection, shared by all who use it.
//!
//! Two kinds of callers wait on it. A blocking program has no reading thread: of the threads that
//! wait for answers one reads (the leader) and hands to each other what is theirs; when its own
//! answer has come, another takes over. In a runtime one task reads for all futures
//! (`aio/driver.rs`). All but the waiting is the same for both.

use crate::answer::Answer;
use crate::error::{Error, TransportError};
use crate::held::Taker;
use crate::lock;
use crate::outbox::{Flushed, Outbox};
use crate::question::Question;
use crate::reader::Reader;
use crate::socket::Socket;
use crate::table::{Abandoned, Death, News, Table, Unwanted, Wants};
use emberd_protocol::{
    Event, Frame, FrameKind, Free, Limits, Request, SegmentId, SlotRef, Welcome,
};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::Waker;

/// A connected, welcomed stream.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: Socket,
    pub(crate) path: PathBuf,
    /// The process that made it: a forked child neither uses nor releases anything of it.
    process: u32,
    welcome: Welcome,
    /// Whether the daemon may announce segments.
    pub(crate) accepts_segments: bool,
    outbox: Outbox,
    pub(crate) table: Mutex<Table>,
    /// For threads; futures have wakers in the table.
    pub(crate) changed: Condvar,
    pub(crate) reader: Mutex<Reader>,
    /// Slots that live views show: where each begins and ends.
    pub(crate) live: Mutex<BTreeMap<(SegmentId, u64), u64>>,
    /// The task that reads, and writes what the socket did not take at once, where there is one.
    driver: Mutex<Option<Waker>>,
}

/// A request under way. Dropped before its answer, it is cancelled, and what still comes for it
/// goes back to the daemon.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) connection: Arc<Connection>,
    pub(crate) id: u64,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.connection.abandon(self.id);
    }
}

impl Connection {
    pub(crate) fn new(
        socket: Socket,
        path: &Path,
        welcome: Welcome,
        accepts_segments: bool,
        reader: Reader,
    ) -> Self {
        Self {
            socket,
            path: path.to_owned(),
            process: std::process::id(),
            welcome,
            accepts_segments,
            outbox: Outbox::default(),
            table: Mutex::default(),
            changed: Condvar::new(),
            reader: Mutex::new(reader),
            live: Mutex::default(),
            driver: Mutex::default(),
        }
    }

    /// Whether it can be used: it is alive, and this process has made it.
    pub(crate) fn is_usable(&self) -> bool {
        self.process == std::process::id() && lock(&self.table).dead.is_none()
    }

    pub(crate) fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.welcome.limits
    }

    /// Requests that may be under way at the same time.
    pub(crate) fn most_in_flight(&self) -> usize {
        self.limits().max_requests_in_flight.max(1) as usize
    }

    /// Asks and waits for the answer, as long as it takes. A failure of the request is an error.
    pub(crate) fn call(
        self: &Arc<Self>,
        question: &mut Question,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Answer, Error> {
        let wants = question.wants();
        let frame = question.frame(self.limits())?;
        let pending = self.enter(wants)?;
        frame.id = pending.id;
        if let Err(error) = self.outbox.send(&self.socket, frame) {
            self.die(&self.lost(&error));
        }
        self.wait(pending.id, on_event)?.or_failure()
    }

    /// Sends a request whose answer nobody waits for. Never blocks.
    pub(crate) fn tell(&self, request: &Request) {
        if !self.is_usable() {
            return;
        }
        let id = lock(&self.table).next_id();
        if let Ok(frame) = Frame::message(FrameKind::Request, id, request) {
            self.send_later(&frame);
        }
    }

    /// Asks for something that is taken when it comes, by whoever reads then. Never blocks, and takes
    /// no room from those who wait. If the connection dies it is not asked again.
    pub(crate) fn ask_later(&self, question: &mut Question, taker: Taker) {
        let Ok(frame) = question.frame(self.limits()) else { return };
        let Some(id) = lock(&self.table).enter_later(taker) else { return };
        frame.id = id;
        self.send_later(frame);
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

    /// A place for a new request, once there is room for it.
    fn enter(self: &Arc<Self>, wants: Wants) -> Result<Pending, Error> {
        let mut table = lock(&self.table);
        loop {
            if let Some(id) = table.enter(self.most_in_flight(), wants)? {
                return Ok(Pending { connection: Arc::clone(self), id });
            }
            table = self.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for an answer, reading for all while no other thread does.
    fn wait(self: &Arc<Self>, id: u64, on_event: &mut dyn FnMut(Event)) -> Result<Answer, Error> {
        let mut table = lock(&self.table);
        loop {
            let (news, wake) = table.news(id);
            match news {
                Some(News::Answer(answer)) => {
                    drop(table);
                    // Room for another request, or the lead, is free.
                    self.changed.notify_all();
                    wake.now();
                    return Ok(answer?);
                }
                Some(News::Event(event)) => {
                    drop(table);
                    on_event(event);
                    table = lock(&self.table);
                    continue;
                }
                None => {}
            }
            if table.has_leader {
                table = self.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            table.has_leader = true;
            drop(table);
            if let Err(death) = self.read_some() {
                self.die(&death);
            }
            table = lock(&self.table);
            table.has_leader = false;
            if table.len() > 1 {
                self.changed.notify_all();
            }
        }
    }

    /// Hands an answer to whoever waits for it.
    pub(crate) fn deliver(self: &Arc<Self>, id: u64, answer: Answer) {
        let taker = lock(&self.table).taker(id);
        if let Some(taker) = taker {
            return taker.take(self, answer);
        }
        let (unwanted, wake) = lock(&self.table).answered(id, answer);
        if let Some(unwanted) = unwanted {
            self.give_back(unwanted);
        }
        wake.now();
    }

    /// Nobody waits for a request any more.
    fn abandon(&self, id: u64) {
        if self.process != std::process::id() {
            return;
        }
        let abandoned = lock(&self.table).abandon(id);
        match abandoned {
            None => {}
            Some(Abandoned::Unanswered(waker)) => {
                drop(waker);
                let (body, tail) = (Vec::new(), Vec::new());
                self.send_later(&Frame { kind: FrameKind::Cancel, descriptors: 0, id, body, tail });
            }
            Some(Abandoned::Over(unwanted, wake)) => {
                self.changed.notify_all();
                if let Some(unwanted) = unwanted {
                    self.give_back(*unwanted);
                }
                wake.now();
            }
        }
    }

    /// Returns to the daemon what an answer brought that nobody takes. Rows go back by being
    /// dropped.
    fn give_back(&self, unwanted: Unwanted) {
        let Unwanted { answer, was_asked_for } = unwanted;
        if let (true, Some(lease)) = (was_asked_for, answer.lease()) {
            self.tell(&Request::Release { lease });
        }
        drop(answer);
    }

    fn send_later(&self, frame: &Frame) {
        if self.outbox.send_later(&self.socket, frame) == Flushed::Full {
            self.wake_driver();
        }
    }

    fn wake_driver(&self) {
        let driver = lock(&self.driver).clone();
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    pub(crate) fn die(&self, death: &Death) {
        self.socket.shutdown();
        let wake = lock(&self.table).die(death);
        self.changed.notify_all();
        wake.now();
    }

    /// Dies if the daemon has hung up.
    pub(crate) fn look(&self) {
        if self.socket.has_ended() {
            self.die(&self.lost(&io::ErrorKind::NotConnected.into()));
        }
    }

    pub(crate) fn lost(&self, error: &io::Error) -> Death {
        let path = self.path.clone();
        Death::Transport(match error.kind() {
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected => TransportError::Disconnected { path },
            kind => TransportError::Socket { path, kind },
        })
    }
}

/// For the task that reads.
#[cfg(feature = "tokio")]
impl Connection {
    /// Sends a frame without waiting for room.
    pub(crate) fn send_soon(&self, frame: &Frame) {
        match self.outbox.send_soon(&self.socket, frame) {
            Ok(Flushed::All) => {}
            Ok(Flushed::Full) => self.wake_driver(),
            Err(error) => self.die(&self.lost(&error)),
        }
    }

    /// Sends what could not be sent at once.
    pub(crate) fn flush(&self) -> Flushed {
        self.outbox.flush(&self.socket)
    }

    pub(crate) fn is_driven_by(&self, driver: &Waker) {
        let mut known = lock(&self.driver);
        if !known.as_ref().is_some_and(|known| known.will_wake(driver)) {
            *known = Some(driver.clone());
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
