//! A queue with one lane for each connection. The lanes take turns, one item at a time, so that a
//! bulk job of one client and single texts of another share the model.
//!
//! It is bounded by bytes, in all and for each connection. Cancelled items are dropped when their
//! turn comes, and all of them before a request is refused.

#[cfg(test)]
mod tests;

use crate::batching::queue::QueueError;
use crate::ground::connection_id::ConnectionId;
use crate::ground::sync::lock;
use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, PoisonError};

/// Bytes that may wait for one model.
const MAX_QUEUED_BYTES: usize = 64 << 20;

/// Bytes that may wait in one lane, so that no connection fills the queue alone.
const MAX_LANE_BYTES: usize = 16 << 20;

/// Bytes that each item costs in addition to its text: an empty text takes memory too.
const ITEM_BYTES: usize = 64;

/// An item of a queue.
pub(crate) trait Queued {
    /// Bytes of its text.
    fn len_bytes(&self) -> usize;

    /// Whether its requester is gone.
    fn is_cancelled(&self) -> bool;
}

/// What happens in a connection's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaneTurn {
    /// Its item is taken.
    Take,
    /// Nothing is taken: its item waits, and no other connection overtakes it.
    Wait,
    /// The turn passes to the next connection; this one is still in front next time.
    Skip,
}

/// Items by connection, shared between threads.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    lanes: Mutex<Lanes<T>>,
    changed: Condvar,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        let lanes =
            Lanes { lanes: HashMap::new(), turns: VecDeque::new(), queued_bytes: 0, closed: false };
        Self { lanes: Mutex::new(lanes), changed: Condvar::new() }
    }
}

impl<T: Queued> FairQueue<T> {
    /// Adds the items of one connection, all or none.
    ///
    /// # Errors
    /// When too much waits already, or the queue is closed.
    pub(crate) fn push(&self, connection: ConnectionId, items: Vec<T>) -> Result<(), QueueError> {
        let bytes = items.iter().map(cost).sum();
        let mut lanes = lock(&self.lanes);
        if lanes.closed {
            return Err(QueueError::Closed);
        }
        if let Err(full) = lanes.check(connection, bytes) {
            lanes.drop_cancelled();
            lanes.check(connection, bytes).map_err(|_| full)?;
        }
        if items.is_empty() {
            return Ok(());
        }
        lanes.add(connection, items, bytes);
        drop(lanes);
        self.changed.notify_all();
        Ok(())
    }

    /// Takes the next item in turn if it `fits`. One that does not fit waits and is not overtaken.
    pub(crate) fn take(&self, fits: impl Fn(&T) -> bool) -> Option<T> {
        lock(&self.lanes).take(|_, item| if fits(item) { LaneTurn::Take } else { LaneTurn::Wait })
    }

    /// Takes an item; `turn` decides about each connection's turn.
    pub(crate) fn take_in_turn(&self, turn: impl Fn(ConnectionId, &T) -> LaneTurn) -> Option<T> {
        lock(&self.lanes).take(turn)
    }

    /// Waits for an item; `None` once the queue is closed and empty.
    pub(crate) fn wait(&self) -> Option<T> {
        let mut lanes = lock(&self.lanes);
        loop {
            if let Some(item) = lanes.take(|_, _| LaneTurn::Take) {
                return Some(item);
            }
            if lanes.closed {
                return None;
            }
            lanes = self.changed.wait(lanes).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Refuses further items. Those inside may still be taken.
    pub(crate) fn close(&self) {
        lock(&self.lanes).closed = true;
        self.changed.notify_all();
    }

    /// How many items wait, without cancelled ones.
    pub(crate) fn len(&self) -> usize {
        let lanes = lock(&self.lanes);
        let items = lanes.lanes.values().flat_map(|lane| &lane.items);
        items.filter(|item| !item.is_cancelled()).count()
    }
}

#[derive(Debug)]
struct Lanes<T> {
    lanes: HashMap<ConnectionId, Lane<T>>,
    /// The order of turns: each lane that holds anything, once.
    turns: VecDeque<ConnectionId>,
    queued_bytes: usize,
    closed: bool,
}

#[derive(Debug)]
struct Lane<T> {
    items: VecDeque<T>,
    bytes: usize,
}

impl<T: Queued> Lanes<T> {
    fn check(&self, connection: ConnectionId, bytes: usize) -> Result<(), QueueError> {
        let held = self.lanes.get(&connection).map_or(0, |lane| lane.bytes);
        // An item that alone exceeds a bound is accepted when nothing else waits: a frame is bounded.
        if self.queued_bytes > 0 && self.queued_bytes + bytes > MAX_QUEUED_BYTES {
            return Err(QueueError::Full { waiting_bytes: self.queued_bytes });
        }
        if held > 0 && held + bytes > MAX_LANE_BYTES {
            return Err(QueueError::Full { waiting_bytes: held });
        }
        Ok(())
    }

    fn add(&mut self, connection: ConnectionId, items: Vec<T>, bytes: usize) {
        let lane = self.lanes.entry(connection).or_insert_with(|| {
            self.turns.push_back(connection);
            Lane { items: VecDeque::new(), bytes: 0 }
        });
        lane.items.extend(items);
        lane.bytes += bytes;
        self.queued_bytes += bytes;
    }

    fn take(&mut self, turn: impl Fn(ConnectionId, &T) -> LaneTurn) -> Option<T> {
        let mut skipped = Vec::new();
        let item = self.take_noting_skipped(turn, &mut skipped);
        skipped.into_iter().rev().for_each(|connection| self.turns.push_front(connection));
        item
    }

    fn take_noting_skipped(
        &mut self,
        turn: impl Fn(ConnectionId, &T) -> LaneTurn,
        skipped: &mut Vec<ConnectionId>,
    ) -> Option<T> {
        while let Some(connection) = self.turns.pop_front() {
            let Some(lane) = self.lanes.get_mut(&connection) else { continue };
            while let Some(item) = lane.items.pop_front_if(|item| item.is_cancelled()) {
                lane.bytes -= cost(&item);
                self.queued_bytes -= cost(&item);
            }
            let Some(item) = lane.items.front() else {
                self.lanes.remove(&connection);
                continue;
            };
            match turn(connection, item) {
                LaneTurn::Take => {}
                LaneTurn::Wait => {
                    self.turns.push_front(connection);
                    return None;
                }
                LaneTurn::Skip => {
                    skipped.push(connection);
                    continue;
                }
            }
            let Some(item) = lane.items.pop_front() else { continue };
            lane.bytes -= cost(&item);
            self.queued_bytes -= cost(&item);
            if lane.items.is_empty() {
                self.lanes.remove(&connection);
            } else {
                self.turns.push_back(connection);
            }
            return Some(item);
        }
        None
    }

    fn drop_cancelled(&mut self) {
        self.queued_bytes = 0;
        for lane in self.lanes.values_mut() {
            lane.items.retain(|item| !item.is_cancelled());
            lane.bytes = lane.items.iter().map(cost).sum();
            self.queued_bytes += lane.bytes;
        }
    }
}

fn cost<T: Queued>(item: &T) -> usize {
    item.len_bytes() + ITEM_BYTES
}
