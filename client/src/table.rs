//! The requests under way on one connection, and what has come for them. Does no I/O.

use crate::answer::Answer;
use crate::error::{Error, ProtocolError, TransportError};
use crate::held::Taker;
use emberd_protocol::Event;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::task::Waker;

/// News of a load kept for somebody who is slow to take them; then the oldest goes.
const MAX_NEWS: usize = 64;

/// What pieces may take that nobody has taken yet. An answer, which repeats them, is far smaller.
const MAX_PIECES_BYTES: usize = 64 << 20;

/// What a piece takes beside its text.
const PIECE_BYTES: usize = 64;

/// What a request wants before its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wants {
    Nothing,
    /// How far a load is. Some may be left out.
    News,
    /// The pieces of so many texts. None may be left out.
    Pieces {
        texts: u32,
    },
}

/// Requests in flight, those who wait for them, and the end of the connection.
#[derive(Debug, Default)]
pub(crate) struct Table {
    last_id: u64,
    waiting: HashMap<u64, Waiting>,
    /// Requests for which nobody waits, and who takes their answers.
    takers: HashMap<u64, Taker>,
    /// Futures that wait until another request may be made, by their tickets.
    for_room: BTreeMap<u64, Waker>,
    #[cfg(feature = "tokio")]
    last_ticket: u64,
    /// Whether a thread reads for all.
    pub(crate) has_leader: bool,
    pub(crate) dead: Option<Death>,
}

/// A request that is not answered yet, or whose answer nobody has taken yet.
#[derive(Debug)]
struct Waiting {
    answer: Option<Answer>,
    wants: Wants,
    events: VecDeque<Event>,
    /// What the pieces among them take.
    pieces_bytes: usize,
    /// The future that waits, where it is one.
    waker: Option<Waker>,
    /// Nobody waits any more; the answer is still to come.
    is_abandoned: bool,
}

/// How a connection ended.
#[derive(Debug, Clone)]
pub(crate) enum Death {
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

/// Futures to be woken once the table's lock is given back: a task may be dropped with its waker
/// or by being woken, and its requests come back here. For the same reason a waker that is no
/// longer needed is returned rather than dropped.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Wake(Vec<Waker>);

impl Wake {
    pub(crate) fn now(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

/// What has come for a request.
#[derive(Debug)]
pub(crate) enum News {
    Event(Event),
    /// It is over; the request is no longer in the table.
    Answer(Result<Answer, Death>),
}

/// An answer that nobody takes.
#[derive(Debug)]
pub(crate) struct Unwanted {
    pub(crate) answer: Answer,
    /// Whether it was asked for, by somebody who has gone.
    pub(crate) was_asked_for: bool,
}

/// A request for which nobody waits.
#[derive(Debug)]
pub(crate) enum Abandoned {
    /// It can still be cancelled.
    Unanswered(Option<Waker>),
    /// Its answer had come, or its connection is dead.
    Over(Option<Box<Unwanted>>, Wake),
}

impl Table {
    /// A number for a request whose answer nobody will wait for.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// A number for a new request, or `None` while there is no room for one.
    pub(crate) fn enter(&mut self, most: usize, wants: Wants) -> Result<Option<u64>, Death> {
        if let Some(death) = &self.dead {
            return Err(death.clone());
        }
        if self.waiting.len() >= most {
            return Ok(None);
        }
        let id = self.next_id();
        let waiting = Waiting {
            answer: None,
            wants,
            events: VecDeque::new(),
            pieces_bytes: 0,
            waker: None,
            is_abandoned: false,
        };
        self.waiting.insert(id, waiting);
        Ok(Some(id))
    }

    /// A number for a request whose answer is taken when it comes; `None` where none will.
    pub(crate) fn enter_later(&mut self, taker: Taker) -> Option<u64> {
        if self.dead.is_some() {
            return None;
        }
        let id = self.next_id();
        self.takers.insert(id, taker);
        Some(id)
    }

    /// Who takes the answer that has come, if nobody waits for it.
    pub(crate) fn taker(&mut self, id: u64) -> Option<Taker> {
        self.takers.remove(&id)
    }

    /// Requests that are in it.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    fn room(&mut self) -> Wake {
        Wake(self.for_room.pop_first().map(|(_, waker)| waker).into_iter().collect())
    }

    /// What has come for a request: its events, then its answer, then the end of the connection.
    pub(crate) fn news(&mut self, id: u64) -> (Option<News>, Wake) {
        let Some(waiting) = self.waiting.get_mut(&id) else { return (None, Wake::default()) };
        if let Some(event) = waiting.events.pop_front() {
            waiting.pieces_bytes -= piece_bytes(&event);
            return (Some(News::Event(event)), Wake::default());
        }
        let result = match (waiting.answer.take(), &self.dead) {
            (Some(answer), _) => Ok(answer),
            (None, Some(death)) => Err(death.clone()),
            (None, None) => return (None, Wake::default()),
        };
        self.waiting.remove(&id);
        (Some(News::Answer(result)), self.room())
    }

    /// An answer has come.
    pub(crate) fn answered(&mut self, id: u64, answer: Answer) -> (Option<Unwanted>, Wake) {
        match self.waiting.get_mut(&id) {
            Some(waiting) if waiting.is_abandoned => {
                self.waiting.remove(&id);
                (Some(Unwanted { answer, was_asked_for: true }), self.room())
            }
            Some(waiting) if waiting.answer.is_none() => {
                waiting.answer = Some(answer);
                (None, Wake(waiting.waker.take().into_iter().collect()))
            }
            // An answer to what was only told, or a second one.
            _ => (Some(Unwanted { answer, was_asked_for: false }), Wake::default()),
        }
    }

    /// An event has come. Events of requests that are over, or that nobody waits for, are dropped.
    pub(crate) fn happened(&mut self, id: u64, event: Event) -> Result<Wake, ProtocolError> {
        let Some(waiting) = self.waiting.get_mut(&id).filter(|waiting| waiting.answer.is_none())
        else {
            return Ok(Wake::default());
        };
        match (waiting.wants, &event) {
            (Wants::Pieces { texts }, Event::Piece { text, .. }) if *text < texts => {}
            (Wants::Pieces { .. }, Event::Piece { .. }) => {
                return Err(ProtocolError::OutOfPlace("a piece of a text that there is not"));
            }
            (
                Wants::News,
                Event::Fetching { .. } | Event::WaitingForRoom | Event::Reading { .. },
            ) => {}
            _ => return Err(ProtocolError::OutOfPlace("an event that was not asked for")),
        }
        if waiting.is_abandoned {
            return Ok(Wake::default());
        }
        if waiting.wants == Wants::News && waiting.events.len() == MAX_NEWS {
            waiting.events.pop_front();
        }
        waiting.pieces_bytes += piece_bytes(&event);
        if waiting.pieces_bytes > MAX_PIECES_BYTES {
            return Err(ProtocolError::OutOfPlace("more pieces than an answer can have"));
        }
        waiting.events.push_back(event);
        Ok(Wake(waiting.waker.take().into_iter().collect()))
    }

    /// Nobody waits for a request any more, if anybody still did.
    pub(crate) fn abandon(&mut self, id: u64) -> Option<Abandoned> {
        let waiting = self.waiting.get_mut(&id)?;
        if waiting.answer.is_none() && self.dead.is_none() {
            waiting.is_abandoned = true;
            // Whether they were asked for is still to be known.
            waiting.events.clear();
            waiting.pieces_bytes = 0;
            return Some(Abandoned::Unanswered(waiting.waker.take()));
        }
        let answer = waiting.answer.take();
        self.waiting.remove(&id);
        let unwanted = answer.map(|answer| Box::new(Unwanted { answer, was_asked_for: true }));
        Some(Abandoned::Over(unwanted, self.room()))
    }

    /// The connection is dead, for this reason if it was not before.
    pub(crate) fn die(&mut self, death: &Death) -> Wake {
        self.dead.get_or_insert_with(|| death.clone());
        self.takers.clear();
        let wakers = self.waiting.values_mut().filter_map(|waiting| waiting.waker.take());
        let for_room = std::mem::take(&mut self.for_room);
        Wake(wakers.chain(for_room.into_values()).collect())
    }
}

/// What an event counts where none may be left out.
fn piece_bytes(event: &Event) -> usize {
    match event {
        Event::Piece { piece, .. } => PIECE_BYTES + piece.len(),
        _ => 0,
    }
}

/// For futures.
#[cfg(feature = "tokio")]
impl Table {
    /// Wakes the task when there is news of a request.
    #[must_use]
    pub(crate) fn wait_for_news(&mut self, id: u64, waker: &Waker) -> Option<Waker> {
        self.waiting.get_mut(&id)?.waker.replace(waker.clone())
    }

    /// Wakes the task when there may be room. The ticket, made here at first, is its place in the
    /// queue, which it has again if it was woken and found no room.
    #[must_use]
    pub(crate) fn wait_for_room(
        &mut self,
        ticket: &mut Option<u64>,
        waker: &Waker,
    ) -> Option<Waker> {
        let number = *ticket.get_or_insert_with(|| {
            self.last_ticket += 1;
            self.last_ticket
        });
        self.for_room.insert(number, waker.clone())
    }

    /// A future has found room.
    #[must_use]
    pub(crate) fn leave_queue(&mut self, ticket: u64) -> Option<Waker> {
        self.for_room.remove(&ticket)
    }

    /// A future does not want room any more. If it was woken for some, another is.
    pub(crate) fn give_up_queue(&mut self, ticket: u64) -> (Option<Waker>, Wake) {
        match self.for_room.remove(&ticket) {
            None => (None, self.room()),
            known => (known, Wake::default()),
        }
    }
}
