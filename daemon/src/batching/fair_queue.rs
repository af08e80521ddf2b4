//! What waits for the worker of a model that makes texts: one lane for each connection, emptied in
//! turn, one item at a time, so that a bulk job of one client and single texts of another share the
//! model.
//!
//! It is bounded by bytes, in all and for each connection. What nobody waits for any more is dropped
//! when its turn comes, and before somebody is refused for its sake.

use crate::batching::queue::QueueError;
use crate::ground::connection_id::ConnectionId;
use crate::ground::sync::lock;
use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, PoisonError};

/// Bytes that may wait for one model.
const MAX_QUEUED_BYTES: usize = 64 << 20;

/// Bytes that one connection may have waiting, so that none fills the queue alone.
const MAX_LANE_BYTES: usize = 16 << 20;

/// What one item costs beyond its text, so that empty texts are not free.
const ITEM_BYTES: usize = 64;

/// Something that waits.
pub(crate) trait Queued {
    /// Bytes of its text.
    fn len_bytes(&self) -> usize;

    /// Whether nobody waits for it any more.
    fn is_cancelled(&self) -> bool;
}

/// What becomes of a connection's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Its item is taken.
    Take,
    /// Nothing is taken: nobody overtakes it.
    Wait,
    /// The next one's turn comes, and this one keeps its own.
    Pass,
}

/// Items by connection.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    lanes: Mutex<Lanes<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Lanes<T> {
    lanes: HashMap<ConnectionId, Lane<T>>,
    /// Whose turn it is: every lane with anything in it, once.
    turns: VecDeque<ConnectionId>,
    queued_bytes: usize,
    closed: bool,
}

#[derive(Debug)]
struct Lane<T> {
    items: VecDeque<T>,
    bytes: usize,
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
    /// When too much waits already, or the model is going away.
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

    /// Takes the next item in turn if it `fits`: one that does not is waited for, not overtaken.
    pub(crate) fn take(&self, fits: impl Fn(&T) -> bool) -> Option<T> {
        lock(&self.lanes).take(|_, item| if fits(item) { Turn::Take } else { Turn::Wait })
    }

    /// Takes the next item, as its turn is said to go.
    pub(crate) fn take_in_turn(&self, turn: impl Fn(ConnectionId, &T) -> Turn) -> Option<T> {
        lock(&self.lanes).take(turn)
    }

    /// Waits for an item; `None` once the queue is closed and empty.
    pub(crate) fn wait(&self) -> Option<T> {
        let mut lanes = lock(&self.lanes);
        loop {
            if let Some(item) = lanes.take(|_, _| Turn::Take) {
                return Some(item);
            }
            if lanes.closed {
                return None;
            }
            lanes = self.changed.wait(lanes).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes no more; what is inside may still be taken out.
    pub(crate) fn close(&self) {
        lock(&self.lanes).closed = true;
        self.changed.notify_all();
    }

    /// Items that wait and are wanted.
    pub(crate) fn len(&self) -> usize {
        let lanes = lock(&self.lanes);
        let items = lanes.lanes.values().flat_map(|lane| &lane.items);
        items.filter(|item| !item.is_cancelled()).count()
    }
}

impl<T: Queued> Lanes<T> {
    fn check(&self, connection: ConnectionId, bytes: usize) -> Result<(), QueueError> {
        let held = self.lanes.get(&connection).map_or(0, |lane| lane.bytes);
        // What is larger than a bound alone may come when nothing else waits: a frame is bounded.
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

    fn take(&mut self, turn: impl Fn(ConnectionId, &T) -> Turn) -> Option<T> {
        let mut passed = Vec::new();
        let item = self.take_noting(turn, &mut passed);
        passed.into_iter().rev().for_each(|connection| self.turns.push_front(connection));
        item
    }

    fn take_noting(
        &mut self,
        turn: impl Fn(ConnectionId, &T) -> Turn,
        passed: &mut Vec<ConnectionId>,
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
                Turn::Take => {}
                Turn::Wait => {
                    self.turns.push_front(connection);
                    return None;
                }
                Turn::Pass => {
                    passed.push(connection);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    #[derive(Debug, Clone)]
    struct Item {
        connection: u64,
        number: usize,
        len_bytes: usize,
        cancelled: Rc<Cell<bool>>,
    }

    impl Queued for Item {
        fn len_bytes(&self) -> usize {
            self.len_bytes
        }
        fn is_cancelled(&self) -> bool {
            self.cancelled.get()
        }
    }

    fn items(connection: u64, count: usize, len_bytes: usize) -> Vec<Item> {
        let cancelled = Rc::new(Cell::new(false));
        let item =
            |number| Item { connection, number, len_bytes, cancelled: Rc::clone(&cancelled) };
        (0..count).map(item).collect()
    }

    fn push(queue: &FairQueue<Item>, items: &[Item]) -> Result<(), QueueError> {
        queue.push(ConnectionId(items[0].connection), items.to_vec())
    }

    fn drain(queue: &FairQueue<Item>) -> Vec<(u64, usize)> {
        let next = || queue.take(|_| true).map(|item| (item.connection, item.number));
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn connections_take_turns_however_much_one_has() {
        let queue = FairQueue::default();
        push(&queue, &items(1, 4, 1)).unwrap();
        push(&queue, &items(2, 2, 1)).unwrap();
        push(&queue, &items(3, 1, 1)).unwrap();
        assert_eq!(drain(&queue), [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (1, 2), (1, 3)]);
    }

    #[test]
    fn what_does_not_fit_keeps_its_turn() {
        let queue = FairQueue::default();
        push(&queue, &items(1, 1, 9)).unwrap();
        push(&queue, &items(2, 1, 1)).unwrap();
        assert!(queue.take(|item| item.len_bytes < 5).is_none());
        assert_eq!(drain(&queue), [(1, 0), (2, 0)]);
    }

    #[test]
    fn what_was_cancelled_is_neither_taken_nor_in_the_way() {
        let queue = FairQueue::default();
        let gone = items(1, 3, 5 << 20);
        push(&queue, &gone).unwrap();
        let more = items(1, 1, 5 << 20);
        assert!(matches!(push(&queue, &more), Err(QueueError::Full { .. })));
        gone[0].cancelled.set(true);
        assert_eq!(queue.len(), 0);
        push(&queue, &more).unwrap();
        assert_eq!(drain(&queue), [(1, 0)]);
    }

    #[test]
    fn one_connection_cannot_fill_the_queue_for_others() {
        let queue = FairQueue::default();
        push(&queue, &items(1, 3, 5 << 20)).unwrap();
        let refused = push(&queue, &items(1, 1, 5 << 20)).unwrap_err();
        assert_eq!(refused, QueueError::Full { waiting_bytes: 3 * ((5 << 20) + ITEM_BYTES) });
        push(&queue, &items(2, 1, 5 << 20)).unwrap();
        for connection in 3..6 {
            push(&queue, &items(connection, 1, 14 << 20)).unwrap();
        }
        let refused = push(&queue, &items(9, 1, 5 << 20)).unwrap_err();
        assert!(matches!(refused, QueueError::Full { waiting_bytes } if waiting_bytes > 60 << 20));
    }

    #[test]
    fn a_closed_queue_takes_nothing_and_is_emptied() {
        let queue = FairQueue::default();
        push(&queue, &items(1, 1, 1)).unwrap();
        queue.close();
        assert_eq!(push(&queue, &items(1, 1, 1)), Err(QueueError::Closed));
        assert!(queue.wait().is_some());
        assert!(queue.wait().is_none());
    }
}
