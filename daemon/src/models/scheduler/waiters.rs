//! The requests that wait for a model, in the order of their arrival.

use crate::ground::connection_id::ConnectionId;
use crate::models::scheduler::ids::WaiterId;
use crate::models::scheduler::types::Want;
use emberd_protocol::ModelId;
use std::collections::BTreeMap;

/// A request that waits for a model.
#[derive(Debug)]
pub(super) struct Waiter {
    /// The model.
    pub(super) model: ModelId,
    /// What the request asks for.
    pub(super) want: Want,
    /// Whether it had to wait for a load.
    pub(super) has_waited: bool,
    /// Whether its client knows that it waits for room.
    knows_of_wait: bool,
}

/// All waiters.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    by_id: BTreeMap<WaiterId, Waiter>,
}

impl Waiters {
    pub(super) fn insert(&mut self, id: WaiterId, model: &ModelId, want: Want) {
        let waiter = Waiter { model: model.clone(), want, has_waited: false, knows_of_wait: false };
        self.by_id.insert(id, waiter);
    }

    pub(super) fn get(&self, id: WaiterId) -> Option<&Waiter> {
        self.by_id.get(&id)
    }

    pub(super) fn remove(&mut self, id: WaiterId) -> Option<Waiter> {
        self.by_id.remove(&id)
    }

    pub(super) fn contains(&self, id: WaiterId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Their ids, in the order of their arrival.
    pub(super) fn ids(&self) -> Vec<WaiterId> {
        self.by_id.keys().copied().collect()
    }

    /// The waiters for a model.
    pub(super) fn of_model(&self, model: &ModelId) -> impl Iterator<Item = WaiterId> {
        self.by_id.iter().filter(move |(_, waiter)| waiter.model == *model).map(|(id, _)| *id)
    }

    /// Removes those that wait for a lease of a connection.
    pub(super) fn remove_connection(&mut self, connection: ConnectionId) {
        self.by_id.retain(|_, waiter| waiter.want != Want::Lease(connection));
    }

    /// Notes that a waiter had to wait for a load.
    pub(super) fn note_wait(&mut self, id: WaiterId) {
        if let Some(waiter) = self.by_id.get_mut(&id) {
            waiter.has_waited = true;
        }
    }

    /// Notes that the client of a waiter knows of its wait for room. Returns whether that is new.
    pub(super) fn mark_waiting_for_room(&mut self, id: WaiterId) -> bool {
        let waiter = self.by_id.get_mut(&id);
        waiter.is_some_and(|waiter| !std::mem::replace(&mut waiter.knows_of_wait, true))
    }
}
