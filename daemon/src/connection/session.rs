//! One connection: handshake, requests, what it holds. Its end releases all of it.
//!
//! Requests that only look something up are answered where they are read; those that wait (a
//! load, an inference) become tasks of the session. The session's end aborts them, which cancels
//! their queued work, gives back their slots, and ends the leases: whatever killed the client,
//! the kernel closed its socket, and that is seen here.

use crate::connection::frames::{ConnectionError, Reader, Writer, split};
use crate::connection::peer::Peer;
use crate::daemon::Shared;
use crate::ground::connection_id::ConnectionId;
use crate::ground::sync::lock;
use crate::request::dispatch;
use crate::request::dispatch::{Answer, Handled, Work};
use crate::request::events::News;
use crate::request::failure::RequestError;
use crate::request::latency::Kind;
use crate::segment::{InlineCredit, SegmentPool};
use crate::settings::AccessGroup;
use emberd_protocol::{
    Embedded, ErrorCode, Failure, Frame, FrameError, FrameKind, Free, Hello, Limits,
    MAX_FRAME_BYTES, MAX_TEXTS, Place, Refusal, RefusalReason, Response, SegmentBackend,
    SegmentRetire, Welcome,
};
use interprocess::local_socket::tokio::Stream;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// Characters of a client's name that are kept.
const NAME_CHARS: usize = 64;

/// How often a connection that is not read looks whether its client is still there.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often a connection with segments looks for idle ones.
const RETIRE_EVERY: Duration = Duration::from_secs(5);

/// A connection as the whole daemon knows it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) peer: Peer,
    /// What the peer calls itself.
    pub(crate) name: String,
    pub(crate) since: Instant,
    /// Its shared memory; `None` where it takes none.
    pub(crate) pool: Option<Arc<SegmentPool>>,
    /// What it may have in results that go inline.
    pub(crate) inline: InlineCredit,
    pub(crate) writer: Writer,
    /// Requests not yet answered, by the client's id. Who takes one out answers it, so that each
    /// is answered once and a task is never aborted while it writes.
    in_flight: Mutex<HashMap<u64, InFlight>>,
    /// As many of them as it was promised.
    max_in_flight: usize,
}

impl Connection {
    /// Requests not yet answered.
    pub(crate) fn requests_in_flight(&self) -> usize {
        lock(&self.in_flight).len()
    }

    /// Whether a request is not yet answered. A client may use an id again: the serial tells which.
    pub(crate) fn is_in_flight(&self, id: u64, serial: u64) -> bool {
        lock(&self.in_flight).get(&id).is_some_and(|request| request.serial == serial)
    }
}

/// A request that is not answered yet.
#[derive(Debug)]
struct InFlight {
    serial: u64,
    task: AbortHandle,
}

/// Serves a connection to its end.
pub(crate) async fn serve(shared: Arc<Shared>, stream: Stream, id: ConnectionId) {
    let peer = match Peer::of(&stream) {
        Ok(peer) => peer,
        Err(error) => {
            tracing::warn!(connection = id.0, %error, "a peer without credentials was sent away");
            return;
        }
    };
    let (mut reader, writer) = split(stream);
    let patience = shared.settings().limits.handshake;
    let mut draining = shared.draining.subscribe();
    let greeting = timeout(patience, handshake(&shared, &mut reader, &writer, peer));
    let greeted = tokio::select! {
        biased;
        greeted = greeting => Some(greeted),
        // A stopping daemon does not wait for those that have not said hello.
        () = async { drop(draining.wait_for(|is_draining| *is_draining).await) } => None,
    };
    let Some(greeted) = greeted else {
        // It says so: they may have come for the next one.
        let _ = refuse(&writer, RefusalReason::ShuttingDown, "the daemon is stopping").await;
        return;
    };
    let hello = match greeted {
        Ok(Ok(Some(hello))) => hello,
        Ok(Ok(None)) => return,
        Ok(Err(error)) => {
            tracing::debug!(connection = id.0, pid = peer.pid, %error, "no handshake");
            return;
        }
        Err(_) => {
            tracing::debug!(connection = id.0, pid = peer.pid, "no handshake in time");
            return;
        }
    };
    let takes_segments = hello.accepts_segments && can_open_segments(&shared, peer);
    let credit = shared.settings().segments.credit_bytes;
    let pool = takes_segments
        .then(|| SegmentPool::new(Arc::clone(&shared.spares), credit, Arc::clone(&shared.credit)));
    let connection = Arc::new(Connection {
        id,
        peer,
        name: hello.name.chars().filter(|c| !c.is_control()).take(NAME_CHARS).collect(),
        since: Instant::now(),
        pool,
        inline: InlineCredit::new(credit, Arc::clone(&shared.inline_total)),
        writer,
        in_flight: Mutex::default(),
        max_in_flight: shared.settings().limits.requests_in_flight as usize,
    });
    lock(&shared.connections).insert(id, Arc::clone(&connection));
    let _registered = Registered { shared: Arc::clone(&shared), id };
    let (tasks, news) = (JoinSet::new(), JoinSet::new());
    let mut session = Session { shared, connection, tasks, news, serial: 0, parked: None };
    if let Err(error) = session.run(&mut reader).await {
        match error {
            ConnectionError::Socket(error) if is_departure(&error) => {
                tracing::debug!(connection = id.0, pid = peer.pid, %error, "the peer left");
            }
            error => tracing::info!(connection = id.0, pid = peer.pid, %error, "connection ended"),
        }
    }
    // Aborted tasks give back what they hold before the connection is forgotten.
    session.tasks.shutdown().await;
}

/// What a peer leaves behind that ends with answers still on their way.
fn is_departure(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// What the daemon knows of the connection ends with this, even if the session panics.
struct Registered {
    shared: Arc<Shared>,
    id: ConnectionId,
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.shared.connections).remove(&self.id);
        let leases = self.shared.registry.end_connection(self.id);
        tracing::debug!(connection = self.id.0, leases, "connection forgotten");
    }
}

/// Whether a peer can open what it is told of. A descriptor serves anybody whom it is sent to; a
/// name is for the daemon's own user (and root) alone.
fn can_open_segments(shared: &Shared, peer: Peer) -> bool {
    shared.spares.backend().kind() == SegmentBackend::Memfd || peer.is_admin()
}

/// Whether a peer may use this daemon. A group may have to be asked for over a network, which is
/// not done where others are served.
async fn is_permitted(shared: &Shared, peer: Peer) -> bool {
    if peer.is_admin() {
        return true;
    }
    let Some(group) = shared.settings().access.clone() else { return false };
    tokio::task::spawn_blocking(move || peer.is_member(&group)).await.unwrap_or(false)
}

/// Reads Hello and answers; `None` where the client was refused or left.
async fn handshake(
    shared: &Shared,
    reader: &mut Reader,
    writer: &Writer,
    peer: Peer,
) -> Result<Option<Hello>, ConnectionError> {
    let first = match reader.next().await {
        Ok(Some(frame)) => frame,
        Ok(None) => return Ok(None),
        Err(ConnectionError::Frame(error @ FrameError::WrongVersion { .. })) => {
            refuse(writer, RefusalReason::Version, &error.to_string()).await?;
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let hello = (first.kind == FrameKind::Hello).then(|| first.decode::<Hello>().ok()).flatten();
    let Some(hello) = hello else {
        refuse(writer, RefusalReason::NoHello, "the first frame must be a Hello").await?;
        return Ok(None);
    };
    if !is_permitted(shared, peer).await {
        let message = match &shared.settings().access {
            None => format!("user {} may not use this daemon", peer.uid),
            Some(AccessGroup { name, .. }) => {
                format!("user {} may not use this daemon: it is not in group {name}", peer.uid)
            }
        };
        refuse(writer, RefusalReason::NotPermitted, &message).await?;
        return Ok(None);
    }
    if *shared.draining.borrow() {
        refuse(writer, RefusalReason::ShuttingDown, "the daemon is stopping").await?;
        return Ok(None);
    }
    let settings = shared.settings();
    let welcome = Welcome {
        daemon_version: env!("CARGO_PKG_VERSION").into(),
        daemon_pid: std::process::id(),
        backend: settings.segments.backend,
        limits: Limits {
            max_texts: MAX_TEXTS,
            max_frame_bytes: u32::try_from(MAX_FRAME_BYTES).unwrap_or(u32::MAX),
            max_requests_in_flight: settings.limits.requests_in_flight,
            max_leases: settings.limits.leases,
            inline_bytes: settings.segments.inline_bytes,
            credit_bytes: settings.segments.credit_bytes,
        },
    };
    writer.write(&Frame::message(FrameKind::Welcome, 0, &welcome)?).await?;
    Ok(Some(hello))
}

/// Sends a refusal; the caller drops the connection.
pub(crate) async fn refuse(
    writer: &Writer,
    reason: RefusalReason,
    message: &str,
) -> Result<(), ConnectionError> {
    let refusal = Refusal { reason, message: message.into() };
    writer.write(&Frame::message(FrameKind::Refusal, 0, &refusal)?).await
}

/// A request that waits for something.
struct Request {
    work: Work,
    kind: Kind,
    arrived: Instant,
    serial: u64,
}

struct Session {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    tasks: JoinSet<()>,
    /// What writes news of requests.
    news: JoinSet<()>,
    /// Of the last request.
    serial: u64,
    /// A request over the limit, by its id. Nothing more is read until it can start.
    parked: Option<(u64, Request)>,
}

impl Session {
    async fn run(&mut self, reader: &mut Reader) -> Result<(), ConnectionError> {
        let mut draining = self.shared.draining.subscribe();
        // A daemon that was stopping before this line has refused the handshake, or is seen here.
        let mut is_draining = *draining.borrow_and_update();
        let mut retire = interval(RETIRE_EVERY);
        retire.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut wanted = self.shared.credit.wanted();
        while !is_draining || !self.tasks.is_empty() {
            let has_segments = self.connection.pool.as_ref().is_some_and(|p| p.segments() > 0);
            // A client with too much in flight is slowed down: its socket is not read. One that
            // keeps to the limit is always read, so that its Cancel, Free and end are seen.
            let may_read = self.parked.is_none();
            tokio::select! {
                biased;
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    self.reap(ended).await?;
                    if let Some((id, work)) = self.parked.take() {
                        self.start(id, work);
                    }
                }
                // The sender lives as long as the daemon: an error means the same.
                _ = draining.changed(), if !is_draining => is_draining = true,
                frame = reader.next(), if may_read => match frame? {
                    Some(frame) => self.frame(frame).await?,
                    None => return Ok(()),
                },
                // What it has sent stands before the end of the stream, and is not read now.
                () = sleep(LOOK_EVERY), if !may_read => if reader.is_abandoned() {
                    return Ok(());
                },
                _ = retire.tick(), if has_segments => {
                    let idle = self.shared.settings().segments.idle;
                    self.retire_idle(idle).await?;
                }
                // Another connection has no room for its result.
                Ok(()) = wanted.changed(), if has_segments => {
                    self.retire_idle(Duration::ZERO).await?;
                }
            }
        }
        Ok(())
    }

    async fn frame(&mut self, frame: Frame) -> Result<(), ConnectionError> {
        match frame.kind {
            FrameKind::Request => self.request(frame).await,
            FrameKind::Cancel => self.cancel(frame.id).await,
            FrameKind::Free => {
                let free: Free = frame.decode()?;
                for slot in &free.slots {
                    // A late or doubled one frees nothing and harms nobody.
                    let _ = self.connection.pool.as_ref().is_some_and(|pool| pool.free(slot));
                }
                Ok(())
            }
            FrameKind::Hello
            | FrameKind::Welcome
            | FrameKind::Refusal
            | FrameKind::Response
            | FrameKind::Segment
            | FrameKind::Retire
            | FrameKind::Event => Err(ConnectionError::OutOfPlace(frame.kind)),
        }
    }

    async fn request(&mut self, frame: Frame) -> Result<(), ConnectionError> {
        let id = frame.id;
        if lock(&self.connection.in_flight).contains_key(&id) {
            return Err(ConnectionError::IdInUse(id));
        }
        let arrived = Instant::now();
        self.serial += 1;
        let (connection, serial) = (&self.connection, self.serial);
        let news = News { writers: &mut self.news, connection, id, serial };
        let (kind, handled) = dispatch::handle(&self.shared, connection, frame, news);
        match handled {
            Handled::Now(result) => {
                self.shared.requests.fetch_add(1, Ordering::Relaxed);
                self.shared.latencies.note(kind, arrived.elapsed());
                respond(&self.connection, id, result).await
            }
            Handled::Later(work) => {
                let work = Request { work, kind, arrived, serial };
                let limit = self.connection.max_in_flight;
                if self.tasks.len() < limit {
                    self.start(id, work);
                } else {
                    self.parked = Some((id, work));
                }
                Ok(())
            }
        }
    }

    fn start(&mut self, id: u64, request: Request) {
        let Request { work, kind, arrived, serial } = request;
        let (shared, connection) = (Arc::clone(&self.shared), Arc::clone(&self.connection));
        // The lock is held until the task stands in the table: it cannot be done before.
        let mut in_flight = lock(&self.connection.in_flight);
        let task = self.tasks.spawn(async move {
            let result = work.await;
            shared.requests.fetch_add(1, Ordering::Relaxed);
            let is_wanted = lock(&connection.in_flight).remove(&id).is_some();
            if !is_wanted {
                // Cancelled at the last moment: the client is never told of what it got.
                give_back(&shared, &connection, result);
                return;
            }
            // Before it is answered: who has the answer finds it counted in the status.
            shared.latencies.note(kind, arrived.elapsed());
            if respond(&connection, id, result).await.is_err() {
                connection.writer.shutdown();
            }
        });
        in_flight.insert(id, InFlight { serial, task });
    }

    async fn cancel(&mut self, id: u64) -> Result<(), ConnectionError> {
        let task = lock(&self.connection.in_flight).remove(&id);
        let Some(InFlight { task, .. }) = task else {
            return Ok(()); // answered already
        };
        task.abort();
        respond(&self.connection, id, Err(RequestError::Cancelled)).await
    }

    /// A panic while a request was worked at costs that request.
    async fn reap(&mut self, ended: Result<(), JoinError>) -> Result<(), ConnectionError> {
        let Err(error) = ended else { return Ok(()) };
        if !error.is_panic() {
            return Ok(());
        }
        let id = {
            let mut in_flight = lock(&self.connection.in_flight);
            let id = in_flight.iter().find(|(_, r)| r.task.id() == error.id()).map(|(id, _)| *id);
            id.inspect(|id| drop(in_flight.remove(id)))
        };
        match id {
            Some(id) => {
                respond(&self.connection, id, Err(RequestError::Defect("a task panicked"))).await
            }
            // It panicked while it wrote its answer: the stream may be cut within a frame.
            None => Err(ConnectionError::Defect),
        }
    }

    async fn retire_idle(&mut self, idle: Duration) -> Result<(), ConnectionError> {
        let Some(pool) = &self.connection.pool else { return Ok(()) };
        // The turn comes first: no answer may point into a segment after its retirement.
        let turn = self.connection.writer.turn().await;
        for segment in pool.retire_idle(idle, Instant::now()) {
            let frame = Frame::message(FrameKind::Retire, 0, &SegmentRetire { segment })?;
            turn.write(&frame, None).await?;
        }
        Ok(())
    }
}

/// Frees what an answer that is never sent points to, and releases what it grants.
fn give_back(shared: &Shared, connection: &Connection, result: Result<Answer, RequestError>) {
    match result.map(|answer| answer.response) {
        Ok(Response::Embedded(Embedded { place: Place::Slot(slot), .. })) => {
            if let Some(pool) = &connection.pool {
                pool.free(&slot);
            }
        }
        Ok(Response::Leased(leased)) => {
            // Gone with its connection already: the same.
            let _ = shared.registry.release(connection.id, leased.lease);
        }
        _ => {}
    }
}

/// Writes the answer to a request, and before it the announcement of a segment that it is the
/// first to point into.
async fn respond(
    connection: &Connection,
    id: u64,
    result: Result<Answer, RequestError>,
) -> Result<(), ConnectionError> {
    // What it holds of the credit is given back when it has been written.
    let Answer { response, tail, inline: _held } = result.unwrap_or_else(|error| {
        let failure = error.to_failure();
        if failure.code == ErrorCode::Internal {
            let cause = crate::ground::error_chain::chain(&error);
            tracing::error!(connection = connection.id.0, request = id, error = cause, "defect");
        }
        Answer::from(Response::Failed(failure))
    });
    let mut frame = match Frame::message(FrameKind::Response, id, &response) {
        Ok(frame) => frame,
        Err(error) => {
            let message = format!("the answer does not fit a frame: {error}");
            let failure = Failure::new(ErrorCode::LimitExceeded, message);
            Frame::message(FrameKind::Response, id, &Response::Failed(failure))?
        }
    };
    frame.tail = tail;
    let turn = connection.writer.turn().await;
    if let Response::Embedded(Embedded { place: Place::Slot(slot), .. }) = &response
        && let Some(announcement) =
            connection.pool.as_ref().and_then(|pool| pool.announce_once(slot.segment))
    {
        let descriptor = announcement.descriptor();
        let mut announce = Frame::message(FrameKind::Segment, 0, &announcement.message)?;
        announce.descriptors = u16::from(descriptor.is_some());
        turn.write(&announce, descriptor).await?;
    }
    turn.write(&frame, None).await
}
