//! The requests in flight on one connection, and what has arrived for them. Does no I/O.

use super::death::Death;
use super::expected_events::ExpectedEvents;
use super::response::ReceivedResponse;
use crate::error::ProtocolError;
use emberd_protocol::Event;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::task::Waker;

/// How many events of a load are kept for a slow caller. Beyond that the oldest is dropped.
const MAX_LOAD_EVENTS: usize = 64;

/// How many bytes of pieces may wait for a slow caller. A response, which repeats all of its
/// pieces, is far smaller.
const MAX_PIECES_BYTES: usize = 64 << 20;

/// What a piece takes in memory besides its text.
const PIECE_OVERHEAD_BYTES: usize = 64;

/// Requests in flight, their callers, and the end of the connection.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    last_id: u64,
    waiting: HashMap<u64, Waiting>,
    /// Requests without a waiting caller, and what to do with their responses.
    background: HashMap<u64, OnResponse>,
    /// Futures that wait until they may send a request, in the order of their tickets.
    waiting_for_room: BTreeMap<u64, Waker>,
    #[cfg(feature = "tokio")]
    last_ticket: u64,
    /// Whether a thread is reading for all.
    pub(super) has_leader: bool,
    death: Option<Death>,
}

/// What to do with the response to a background request.
pub(crate) struct OnResponse(Box<dyn FnOnce(ReceivedResponse) + Send>);

/// What has arrived for a request.
#[derive(Debug)]
pub(crate) enum Arrival {
    Event(Event),
    /// The request is over and no longer in flight.
    Response(Result<ReceivedResponse, Death>),
}

/// A response without a caller.
#[derive(Debug)]
pub(crate) struct Unclaimed {
    pub(super) response: ReceivedResponse,
    /// Whether there was such a request, whose caller has gone.
    pub(super) was_requested: bool,
}

/// What becomes of a request whose caller has gone.
#[derive(Debug)]
pub(crate) enum Abandoned {
    /// It can still be cancelled.
    Unanswered(Option<Waker>),
    /// Its response had arrived, or its connection is dead.
    Over(Option<Box<Unclaimed>>, Wakeups),
}

/// Futures to wake after the lock around [`InFlight`] is released: waking or dropping a waker may
/// drop a task, whose requests then lock it again. For the same reason methods return wakers that
/// are no longer needed instead of dropping them.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Wakeups(Vec<Waker>);

impl InFlight {
    /// The cause of death, if the connection is dead.
    pub(super) fn death(&self) -> Option<&Death> {
        self.death.as_ref()
    }

    /// How many requests have a waiting caller.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// An id for a request whose response will be ignored.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// An id for a new request, or `None` while `limit` requests are waiting.
    pub(crate) fn begin(
        &mut self,
        limit: usize,
        expects: ExpectedEvents,
    ) -> Result<Option<u64>, Death> {
        if let Some(death) = &self.death {
            return Err(death.clone());
        }
        if self.waiting.len() >= limit {
            return Ok(None);
        }
        let id = self.next_id();
        self.waiting.insert(id, Waiting::new(expects));
        Ok(Some(id))
    }

    /// An id for a request whose response goes to a callback; `None` if the connection is dead.
    pub(super) fn begin_background(&mut self, on_response: OnResponse) -> Option<u64> {
        if self.death.is_some() {
            return None;
        }
        let id = self.next_id();
        self.background.insert(id, on_response);
        Some(id)
    }

    /// The callback for a response that has arrived, if its request was a background request.
    pub(super) fn take_callback(&mut self, id: u64) -> Option<OnResponse> {
        self.background.remove(&id)
    }

    /// The next thing that has arrived for a request: its events, then its response, then the death
    /// of the connection.
    pub(crate) fn next_arrival(&mut self, id: u64) -> (Option<Arrival>, Wakeups) {
        let Some(waiting) = self.waiting.get_mut(&id) else { return (None, Wakeups::default()) };
        if let Some(event) = waiting.events.pop_front() {
            waiting.pieces_bytes -= piece_bytes(&event);
            return (Some(Arrival::Event(event)), Wakeups::default());
        }
        let result = match (waiting.response.take(), &self.death) {
            (Some(response), _) => Ok(response),
            (None, Some(death)) => Err(death.clone()),
            (None, None) => return (None, Wakeups::default()),
        };
        self.waiting.remove(&id);
        (Some(Arrival::Response(result)), self.admit_next())
    }

    /// A response has arrived.
    pub(super) fn response_arrived(
        &mut self,
        id: u64,
        response: ReceivedResponse,
    ) -> (Option<Unclaimed>, Wakeups) {
        match self.waiting.get_mut(&id) {
            Some(waiting) if waiting.is_abandoned => {
                self.waiting.remove(&id);
                (Some(Unclaimed { response, was_requested: true }), self.admit_next())
            }
            Some(waiting) if waiting.response.is_none() => {
                waiting.response = Some(response);
                (None, Wakeups(waiting.waker.take().into_iter().collect()))
            }
            // The response to a one-way request, or a second response.
            Some(_) | None => {
                (Some(Unclaimed { response, was_requested: false }), Wakeups::default())
            }
        }
    }

    /// An event has arrived. Events of requests that are over or abandoned are dropped.
    pub(super) fn event_arrived(
        &mut self,
        id: u64,
        event: Event,
    ) -> Result<Wakeups, ProtocolError> {
        let Some(waiting) = self.waiting.get_mut(&id).filter(|waiting| waiting.response.is_none())
        else {
            return Ok(Wakeups::default());
        };
        match (waiting.expects, &event) {
            (ExpectedEvents::Pieces { texts }, Event::Piece { text, .. }) if *text < texts => {}
            (ExpectedEvents::Pieces { .. }, Event::Piece { .. }) => {
                return Err(ProtocolError::OutOfPlace("a piece of a text that was not sent"));
            }
            (
                ExpectedEvents::LoadProgress,
                Event::Fetching { .. } | Event::WaitingForRoom | Event::Reading { .. },
            ) => {}
            (ExpectedEvents::None, _)
            | (ExpectedEvents::LoadProgress, Event::Piece { .. })
            | (
                ExpectedEvents::Pieces { .. },
                Event::Fetching { .. } | Event::WaitingForRoom | Event::Reading { .. },
            ) => return Err(ProtocolError::OutOfPlace("an event that was not requested")),
        }
        if waiting.is_abandoned {
            return Ok(Wakeups::default());
        }
        let may_skip = waiting.expects == ExpectedEvents::LoadProgress;
        if may_skip && waiting.events.len() == MAX_LOAD_EVENTS {
            waiting.events.pop_front();
        }
        waiting.pieces_bytes += piece_bytes(&event);
        if waiting.pieces_bytes > MAX_PIECES_BYTES {
            return Err(ProtocolError::OutOfPlace("more pieces than a response can have"));
        }
        waiting.events.push_back(event);
        Ok(Wakeups(waiting.waker.take().into_iter().collect()))
    }

    /// The caller of a request has gone. `None` if the caller had already received the response.
    pub(super) fn abandon(&mut self, id: u64) -> Option<Abandoned> {
        let waiting = self.waiting.get_mut(&id)?;
        if waiting.response.is_none() && self.death.is_none() {
            waiting.is_abandoned = true;
            // The request stays, to check the events that still arrive.
            waiting.events.clear();
            waiting.pieces_bytes = 0;
            return Some(Abandoned::Unanswered(waiting.waker.take()));
        }
        let response = waiting.response.take();
        self.waiting.remove(&id);
        let unclaimed =
            response.map(|response| Box::new(Unclaimed { response, was_requested: true }));
        Some(Abandoned::Over(unclaimed, self.admit_next()))
    }

    /// The connection is dead. The first cause counts.
    pub(super) fn die(&mut self, death: &Death) -> Wakeups {
        self.death.get_or_insert_with(|| death.clone());
        self.background.clear();
        let wakers = self.waiting.values_mut().filter_map(|waiting| waiting.waker.take());
        let waiting_for_room = std::mem::take(&mut self.waiting_for_room);
        Wakeups(wakers.chain(waiting_for_room.into_values()).collect())
    }

    /// There is room for one more request.
    fn admit_next(&mut self) -> Wakeups {
        Wakeups(self.waiting_for_room.pop_first().map(|(_, waker)| waker).into_iter().collect())
    }
}

/// For futures.
#[cfg(feature = "tokio")]
impl InFlight {
    /// Wakes the task when something arrives for a request.
    #[must_use]
    pub(crate) fn wake_on_arrival(&mut self, id: u64, waker: &Waker) -> Option<Waker> {
        self.waiting.get_mut(&id)?.waker.replace(waker.clone())
    }

    /// Wakes the task when there may be room for its request. The first call sets the ticket, which
    /// is the task's position in the queue: a task that was woken and still found no room keeps it.
    #[must_use]
    pub(crate) fn wake_on_room(
        &mut self,
        ticket: &mut Option<u64>,
        waker: &Waker,
    ) -> Option<Waker> {
        let number = *ticket.get_or_insert_with(|| {
            self.last_ticket += 1;
            self.last_ticket
        });
        self.waiting_for_room.insert(number, waker.clone())
    }

    /// A future has found room.
    #[must_use]
    pub(crate) fn leave_queue(&mut self, ticket: u64) -> Option<Waker> {
        self.waiting_for_room.remove(&ticket)
    }

    /// A future stops waiting for room. If it had been woken already, the next one is.
    pub(crate) fn give_up_queue(&mut self, ticket: u64) -> (Option<Waker>, Wakeups) {
        match self.waiting_for_room.remove(&ticket) {
            None => (None, self.admit_next()),
            waker => (waker, Wakeups::default()),
        }
    }
}

impl OnResponse {
    pub(crate) fn new(callback: impl FnOnce(ReceivedResponse) + Send + 'static) -> Self {
        Self(Box::new(callback))
    }

    pub(super) fn run(self, response: ReceivedResponse) {
        (self.0)(response);
    }
}

impl fmt::Debug for OnResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnResponse").finish_non_exhaustive()
    }
}

impl Wakeups {
    pub(crate) fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

/// A request without a response, or with one that its caller has not taken yet.
#[derive(Debug)]
struct Waiting {
    response: Option<ReceivedResponse>,
    expects: ExpectedEvents,
    events: VecDeque<Event>,
    /// The size of the pieces among the events.
    pieces_bytes: usize,
    /// Set if the caller is a future.
    waker: Option<Waker>,
    /// The caller has gone; the response is still to come.
    is_abandoned: bool,
}

impl Waiting {
    fn new(expects: ExpectedEvents) -> Self {
        Self {
            response: None,
            expects,
            events: VecDeque::new(),
            pieces_bytes: 0,
            waker: None,
            is_abandoned: false,
        }
    }
}

/// How much of [`MAX_PIECES_BYTES`] an event uses.
fn piece_bytes(event: &Event) -> usize {
    match event {
        Event::Piece { piece, .. } => PIECE_OVERHEAD_BYTES + piece.len(),
        Event::Fetching { .. } | Event::WaitingForRoom | Event::Reading { .. } => 0,
    }
}
