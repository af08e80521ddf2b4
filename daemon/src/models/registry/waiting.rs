//! The waiters' channels: one kind of channel for each kind of grant.

use crate::models::registry::grants::{HeldLease, Use};
use crate::models::scheduler::{WaitError, WaiterId};
use emberd_protocol::{Event, Preloaded};
use std::collections::HashMap;
use tokio::sync::{mpsc, oneshot};

/// Receives the events of a load.
pub(crate) type Events = mpsc::UnboundedSender<Event>;

/// The answer to a waiter.
pub(super) type Outcome<G> = Result<G, WaitError>;

/// Sends one answer. To be called without the registry's lock: a grant whose waiter has left is
/// dropped, which takes that lock.
pub(super) type Delivery = Box<dyn FnOnce() + Send>;

/// The waiters' channels.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom {
    leases: Replies<HeldLease>,
    uses: Replies<Use>,
    preloads: Replies<Preloaded>,
    events: HashMap<WaiterId, Events>,
}

/// A kind of grant.
pub(super) trait Grant: Send + Sized + 'static {
    /// The channels of the waiters for grants of this kind.
    fn replies(room: &mut WaitingRoom) -> &mut HashMap<WaiterId, oneshot::Sender<Outcome<Self>>>;
}

impl Grant for HeldLease {
    fn replies(room: &mut WaitingRoom) -> &mut Replies<Self> {
        &mut room.leases
    }
}

impl Grant for Use {
    fn replies(room: &mut WaitingRoom) -> &mut Replies<Self> {
        &mut room.uses
    }
}

impl Grant for Preloaded {
    fn replies(room: &mut WaitingRoom) -> &mut Replies<Self> {
        &mut room.preloads
    }
}

impl WaitingRoom {
    /// Adds a waiter for a grant of this kind.
    pub(super) fn enter<G: Grant>(
        &mut self,
        id: WaiterId,
        events: Option<Events>,
    ) -> oneshot::Receiver<Outcome<G>> {
        let (reply, receiver) = oneshot::channel();
        G::replies(self).insert(id, reply);
        self.events.extend(events.map(|events| (id, events)));
        receiver
    }

    /// Removes a waiter. Returns whether it was still waiting.
    pub(super) fn leave<G: Grant>(&mut self, id: WaiterId) -> bool {
        self.events.remove(&id);
        G::replies(self).remove(&id).is_some()
    }

    /// Answers a waiter with its grant.
    pub(super) fn grant<G: Grant>(&mut self, id: WaiterId, grant: G) -> Delivery {
        self.answer(id, Ok(grant))
    }

    /// Answers a waiter of any kind with an error.
    pub(super) fn fail(&mut self, id: WaiterId, error: WaitError) -> Delivery {
        if self.leases.contains_key(&id) {
            self.answer::<HeldLease>(id, Err(error))
        } else if self.uses.contains_key(&id) {
            self.answer::<Use>(id, Err(error))
        } else {
            self.answer::<Preloaded>(id, Err(error))
        }
    }

    /// Tells a waiter of an event, if it wants to know.
    pub(super) fn tell(&self, id: WaiterId, event: Event) {
        if let Some(events) = self.events.get(&id) {
            // A client that has left needs no events.
            let _ = events.send(event);
        }
    }

    fn answer<G: Grant>(&mut self, id: WaiterId, answer: Outcome<G>) -> Delivery {
        self.events.remove(&id);
        let reply = G::replies(self).remove(&id);
        // Without a receiver, or without a waiter, the grant is dropped and thereby given back.
        Box::new(move || drop(reply.map(|reply| reply.send(answer))))
    }
}

type Replies<G> = HashMap<WaiterId, oneshot::Sender<Outcome<G>>>;
