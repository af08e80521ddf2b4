//! One connection, shared by all of its callers.
//!
//! There are two kinds of callers. Blocking callers have no reading thread: one of the threads that
//! wait for responses reads and hands out what belongs to the others (`connection/threads.rs`). In
//! a runtime one task reads for all futures (`aio/driver.rs`). Everything but the waiting is the
//! same for both.

mod incoming;
mod slots;
mod threads;

#[cfg(feature = "tokio")]
pub(crate) use incoming::Progress;

use super::death::Death;
use super::in_flight::{Abandoned, InFlight, OnResponse, Unclaimed};
use super::outbox::{Flushed, Outbox};
use super::reader::Reader;
use super::request::PreparedRequest;
use super::response::ReceivedResponse;
use super::socket::Socket;
use crate::error::TransportError;
use crate::sync::lock;
use emberd_protocol::{Frame, FrameKind, Limits, Request, Welcome};
use slots::LiveSlots;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::task::Waker;

/// A stream that the daemon has welcomed.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    path: PathBuf,
    /// The process that connected. A forked child must not use the connection, nor release
    /// anything that belongs to it.
    process: u32,
    welcome: Welcome,
    /// Whether the daemon may announce segments.
    accepts_segments: bool,
    outbox: Outbox,
    in_flight: Mutex<InFlight>,
    /// Wakes threads; futures have wakers in `in_flight`.
    changed: Condvar,
    reader: Mutex<Reader>,
    live_slots: Mutex<LiveSlots>,
    /// The task, if any, that reads, and that writes what the socket did not take at once.
    driver: Mutex<Option<Waker>>,
}

/// A request in flight. Dropping it before its response cancels it; what still arrives for it goes
/// back to the daemon.
#[derive(Debug)]
pub(crate) struct PendingRequest {
    pub(crate) connection: Arc<Connection>,
    pub(crate) id: u64,
}

impl Drop for PendingRequest {
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
            in_flight: Mutex::default(),
            changed: Condvar::new(),
            reader: Mutex::new(reader),
            live_slots: Mutex::default(),
            driver: Mutex::default(),
        }
    }

    /// The socket's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.welcome.limits
    }

    /// How many requests may be in flight at the same time.
    pub(crate) fn max_in_flight(&self) -> usize {
        self.limits().max_requests_in_flight.max(1) as usize
    }

    /// Whether it is alive and belongs to this process.
    pub(crate) fn is_usable(&self) -> bool {
        self.is_ours() && lock(&self.in_flight).death().is_none()
    }

    /// Sends a request and ignores its response. Never blocks.
    pub(crate) fn send_one_way(&self, request: &Request) {
        if !self.is_usable() {
            return;
        }
        let id = lock(&self.in_flight).next_id();
        if let Ok(frame) = Frame::message(FrameKind::Request, id, request) {
            self.send_later(&frame);
        }
    }

    /// Sends a request whose response goes to a callback, called by the thread or task that reads
    /// it. Never blocks, and does not count against [`Connection::max_in_flight`]. If the connection
    /// dies the callback is dropped.
    pub(crate) fn send_in_background(
        &self,
        request: &mut PreparedRequest,
        on_response: OnResponse,
    ) {
        let Ok(frame) = request.frame(self.limits()) else { return };
        let Some(id) = lock(&self.in_flight).begin_background(on_response) else { return };
        frame.id = id;
        self.send_later(frame);
    }

    /// Dies if the daemon has hung up.
    pub(crate) fn check_hangup(&self) {
        if self.socket.has_ended() {
            self.die(&self.death_by(&io::ErrorKind::NotConnected.into()));
        }
    }

    /// Shuts the socket down and fails all requests in flight.
    pub(crate) fn die(&self, death: &Death) {
        self.socket.shutdown();
        let wakeups = lock(&self.in_flight).die(death);
        self.changed.notify_all();
        wakeups.wake();
    }

    /// The death that a failed system call on the socket means.
    pub(crate) fn death_by(&self, error: &io::Error) -> Death {
        let path = self.path.clone();
        Death::Transport(match error.kind() {
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected => TransportError::Disconnected { path },
            kind => TransportError::Socket { path, kind },
        })
    }

    /// Hands a response to its caller.
    fn deliver(&self, id: u64, response: ReceivedResponse) {
        let callback = lock(&self.in_flight).take_callback(id);
        if let Some(callback) = callback {
            return callback.run(response);
        }
        let (unclaimed, wakeups) = lock(&self.in_flight).response_arrived(id, response);
        if let Some(unclaimed) = unclaimed {
            self.give_back(unclaimed);
        }
        wakeups.wake();
    }

    /// The caller of a request has gone.
    fn abandon(&self, id: u64) {
        if !self.is_ours() {
            return;
        }
        let abandoned = lock(&self.in_flight).abandon(id);
        match abandoned {
            None => {}
            Some(Abandoned::Unanswered(waker)) => {
                drop(waker);
                let (body, tail) = (Vec::new(), Vec::new());
                self.send_later(&Frame { kind: FrameKind::Cancel, descriptors: 0, id, body, tail });
            }
            Some(Abandoned::Over(unclaimed, wakeups)) => {
                self.changed.notify_all();
                if let Some(unclaimed) = unclaimed {
                    self.give_back(*unclaimed);
                }
                wakeups.wake();
            }
        }
    }

    /// Returns what a response without a caller brought. Rows go back when they are dropped.
    fn give_back(&self, unclaimed: Unclaimed) {
        let Unclaimed { response, was_requested } = unclaimed;
        if let (true, Some(lease)) = (was_requested, response.granted_lease()) {
            self.send_one_way(&Request::Release { lease });
        }
        drop(response);
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

    fn is_ours(&self) -> bool {
        self.process == std::process::id()
    }
}

/// For the task that reads, and the futures that it reads for.
#[cfg(feature = "tokio")]
impl Connection {
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(crate) fn in_flight(&self) -> &Mutex<InFlight> {
        &self.in_flight
    }

    /// Sends a frame without waiting: the driver sends what the socket does not take at once.
    pub(crate) fn send_soon(&self, frame: &Frame) {
        match self.outbox.send_soon(&self.socket, frame) {
            Ok(Flushed::All) => {}
            Ok(Flushed::Full) => self.wake_driver(),
            Err(error) => self.die(&self.death_by(&error)),
        }
    }

    /// Sends what could not be sent at once.
    pub(crate) fn flush(&self) -> Flushed {
        self.outbox.flush(&self.socket)
    }

    /// Registers the task to wake when something is left to send.
    pub(crate) fn set_driver(&self, driver: &Waker) {
        let mut known = lock(&self.driver);
        if !known.as_ref().is_some_and(|known| known.will_wake(driver)) {
            *known = Some(driver.clone());
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Closing the descriptor does not end the connection while a forked child has it open.
        if self.is_ours() {
            self.socket.shutdown();
        }
    }
}
