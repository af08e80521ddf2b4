//! The loop that serves one connection to its end.
//!
//! Requests that only look something up are answered as they are read; those that wait (for a load,
//! a computation) become tasks of the session. The end of the session aborts them, which cancels
//! their queued work and gives back what they hold, and ends the leases. However a client dies, the
//! kernel closes its socket, and the session sees that.

use crate::connection::error::ConnectionError;
use crate::connection::frames::FrameReader;
use crate::connection::handshake::{Welcomed, welcome};
use crate::connection::reply::ReplyWriter;
use crate::models::lease::ConnectionId;
use crate::request::answer::{Answer, PendingAnswer};
use crate::request::caller::Caller;
use crate::request::dispatch::{self, Handled};
use crate::request::events::{EventSink, EventWriter};
use crate::request::in_flight::{InFlight, RequestKey};
use crate::request::latency::RequestKind;
use crate::request::state::DaemonState;
use emberd_protocol::{Frame, FrameKind, Free, SegmentBackend};
use interprocess::local_socket::tokio::Stream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

/// Characters of a client's name that are kept.
const NAME_CHARS: usize = 64;

/// How often a connection with segments looks for idle ones.
const RETIRE_EVERY: Duration = Duration::from_secs(5);

/// Serves a connection to its end.
pub(crate) async fn serve(state: Arc<DaemonState>, stream: Stream, id: ConnectionId) {
    let Some(welcomed) = welcome(&state, stream, id).await else { return };
    let Welcomed { peer, hello, mut reader, writer } = welcomed;
    // A memfd goes to any peer, by its descriptor; a named segment opens to the daemon's own user
    // and root alone.
    let can_map = state.segment_backend() == SegmentBackend::Memfd || peer.is_admin();
    let caller = Arc::new(Caller {
        id,
        peer,
        name: hello.name.chars().filter(|c| !c.is_control()).take(NAME_CHARS).collect(),
        since: Instant::now(),
        pool: (hello.accepts_segments && can_map).then(|| state.new_pool()),
        inline: state.new_inline_credit(),
        in_flight: InFlight::default(),
    });
    // Dropped last, even after a panic: before that, tasks give back what they hold.
    let _registration = state.register(Arc::clone(&caller));
    let replies = Arc::new(ReplyWriter::new(Arc::clone(&caller), writer));
    let mut session = Session {
        max_in_flight: state.settings().limits.requests_in_flight as usize,
        events: Arc::clone(&replies) as Arc<dyn EventSink>,
        state,
        caller,
        replies,
        tasks: JoinSet::new(),
        event_tasks: JoinSet::new(),
        last_serial: 0,
        parked: None,
    };
    if let Err(error) = session.run(&mut reader).await {
        if error.is_departure() {
            tracing::debug!(connection = id.0, pid = peer.pid, %error, "the client disconnected");
        } else {
            tracing::info!(connection = id.0, pid = peer.pid, %error, "connection ended");
        }
    }
    session.tasks.shutdown().await;
}

struct Session {
    state: Arc<DaemonState>,
    caller: Arc<Caller>,
    replies: Arc<ReplyWriter>,
    /// `replies`, as handlers see it.
    events: Arc<dyn EventSink>,
    /// Work on requests. They write their answers themselves.
    tasks: JoinSet<()>,
    /// They write events of requests.
    event_tasks: JoinSet<()>,
    last_serial: u64,
    /// The most tasks at once, as the client was promised.
    max_in_flight: usize,
    /// A request over that limit. Nothing more is read until it can start.
    parked: Option<WaitingRequest>,
}

/// A request whose answer waits for something.
struct WaitingRequest {
    key: RequestKey,
    kind: RequestKind,
    arrived: Instant,
    answer: PendingAnswer,
}

impl Session {
    async fn run(&mut self, reader: &mut FrameReader) -> Result<(), ConnectionError> {
        let mut draining = self.state.watch_draining();
        // A daemon that began to stop before this line has refused the handshake, or is seen here.
        let mut is_draining = *draining.borrow_and_update();
        let mut retire = interval(RETIRE_EVERY);
        retire.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut wanted = self.state.segment_credit().wanted();
        let replies = Arc::clone(&self.replies);
        while !is_draining || !self.tasks.is_empty() {
            let has_segments = self.caller.pool.as_ref().is_some_and(|p| p.segments() > 0);
            // A client with too much in flight is slowed down: its socket is not read. One that
            // keeps to the limit is always read, so that its Cancel, Free and end are seen.
            let may_read = self.parked.is_none();
            tokio::select! {
                biased;
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    self.reap(ended).await?;
                    if let Some(request) = self.parked.take() {
                        self.start(request);
                    }
                }
                // The sender lives as long as the daemon: an error, too, means that it is stopping.
                _ = draining.changed(), if !is_draining => is_draining = true,
                frame = reader.next(), if may_read => match frame? {
                    Some(frame) => self.frame(frame).await?,
                    None => return Ok(()),
                },
                // The end of the stream comes after frames that are not being read now.
                () = replies.hung_up(), if !may_read => return Ok(()),
                _ = retire.tick(), if has_segments => {
                    let idle = self.state.settings().segments.idle;
                    self.replies.retire_idle(idle).await?;
                }
                // Another connection has no room for its result.
                Ok(()) = wanted.changed(), if has_segments => {
                    self.replies.retire_idle(Duration::ZERO).await?;
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
                    // A late or repeated one frees nothing and does no harm.
                    let _ = self.caller.pool.as_ref().is_some_and(|pool| pool.free(slot));
                }
                Ok(())
            }
            FrameKind::Hello
            | FrameKind::Welcome
            | FrameKind::Refusal
            | FrameKind::Response
            | FrameKind::Segment
            | FrameKind::Retire
            | FrameKind::Event => Err(ConnectionError::UnexpectedKind(frame.kind)),
        }
    }

    async fn request(&mut self, frame: Frame) -> Result<(), ConnectionError> {
        let id = frame.id;
        if self.caller.in_flight.has_id(id) {
            return Err(ConnectionError::IdInUse(id));
        }
        let arrived = Instant::now();
        self.last_serial += 1;
        let key = RequestKey { id, serial: self.last_serial };
        let events = EventWriter { tasks: &mut self.event_tasks, sink: &self.events, request: key };
        let (kind, handled) = dispatch::handle(&self.state, &self.caller, frame, events);
        match handled {
            Handled::Now(answer) => {
                self.state.note_answer(kind, arrived.elapsed());
                self.replies.answer(id, answer).await
            }
            Handled::Later(answer) => {
                let request = WaitingRequest { key, kind, arrived, answer };
                if self.tasks.len() < self.max_in_flight {
                    self.start(request);
                } else {
                    self.parked = Some(request);
                }
                Ok(())
            }
        }
    }

    fn start(&mut self, request: WaitingRequest) {
        let WaitingRequest { key, kind, arrived, answer } = request;
        let (state, caller) = (Arc::clone(&self.state), Arc::clone(&self.caller));
        let replies = Arc::clone(&self.replies);
        let work = async move {
            let answer = answer.wait().await;
            if !caller.in_flight.finish(key) {
                // Cancelled at the last moment. The client never learns of the slot or lease that it was
                // about to get, and the answer gives it back.
                return;
            }
            state.note_answer(kind, arrived.elapsed());
            if replies.answer(key.id, answer).await.is_err() {
                replies.shutdown();
            }
        };
        self.caller.in_flight.start(key, || self.tasks.spawn(work));
    }

    async fn cancel(&mut self, id: u64) -> Result<(), ConnectionError> {
        if !self.caller.in_flight.cancel(id) {
            return Ok(()); // It was answered before.
        }
        self.replies.answer(id, Answer::cancelled(self.caller.id, id)).await
    }

    /// Answers a request whose handler panicked: the panic costs that request alone.
    async fn reap(&mut self, ended: Result<(), JoinError>) -> Result<(), ConnectionError> {
        let Err(error) = ended else { return Ok(()) };
        if !error.is_panic() {
            return Ok(());
        }
        match self.caller.in_flight.take_task(error.id()) {
            Some(id) => self.replies.answer(id, Answer::panicked(self.caller.id, id)).await,
            // It panicked while it wrote its answer: the stream may be cut within a frame.
            None => Err(ConnectionError::Defect),
        }
    }
}
