//! Turns, bounds and cancellation.

use crate::batching::fair_queue::{FairQueue, ITEM_BYTES, Queued};
use crate::batching::queue::QueueError;
use crate::ground::connection_id::ConnectionId;
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
    let item = |number| Item { connection, number, len_bytes, cancelled: Rc::clone(&cancelled) };
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
fn an_item_that_does_not_fit_keeps_its_turn() {
    let queue = FairQueue::default();
    push(&queue, &items(1, 1, 9)).unwrap();
    push(&queue, &items(2, 1, 1)).unwrap();
    assert!(queue.take(|item| item.len_bytes < 5).is_none());
    assert_eq!(drain(&queue), [(1, 0), (2, 0)]);
}

#[test]
fn a_cancelled_item_is_neither_taken_nor_counted() {
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
