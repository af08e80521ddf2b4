//! The texts that wait for one model, and how they become batches.
//!
//! Each connection has a lane. A lane holds jobs whose texts are still to be tokenized, and texts
//! that are tokens already. Workers ask for a [`WorkerTask`]: they tokenize until a window of tokens
//! is ready, then compute. A window is filled from the lanes by deficit round robin (in each turn a
//! lane may spend the tokens of one batch), so that a bulk job of one process and single queries of
//! another share the model.

mod error;
mod row_lanes;
mod task;
#[cfg(test)]
mod tests;
mod token_window;

pub use crate::batching::queue::error::QueueError;
pub(crate) use crate::batching::queue::task::{TextRange, WorkerTask};
pub use crate::batching::queue::token_window::BatchLimits;

use crate::batching::queue::row_lanes::RowLanes;
use crate::batching::row_job::{RowJob, TokenizedText};
use crate::ground::sync::lock;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Jobs for one model: requests add them, and workers take their texts.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: BatchLimits,
    state: Mutex<QueueState>,
    changed: Condvar,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub(crate) fn new(limits: BatchLimits) -> Self {
        Self { limits, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Adds a job.
    ///
    /// # Errors
    /// When too much waits already, or the queue is closed.
    pub(crate) fn push(&self, job: Arc<RowJob>) -> Result<(), QueueError> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(QueueError::Closed);
        }
        state.lanes.push(job)?;
        let is_awaited = state.waiting_workers > 0;
        drop(state);
        if is_awaited {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Waits for a task; `None` once the queue is closed and empty.
    pub(super) fn take(&self) -> Option<WorkerTask> {
        let mut state = lock(&self.state);
        loop {
            if let Some(task) = state.lanes.next(self.limits) {
                // There may be a task for another worker too.
                if state.waiting_workers > 0 && state.lanes.has_work() {
                    self.changed.notify_one();
                }
                return Some(task);
            }
            if state.closed {
                return None;
            }
            state.waiting_workers += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting_workers -= 1;
        }
    }

    /// Returns what a worker has tokenized, and the rest of the range that it was given.
    pub(super) fn put_back(&self, rest: TextRange, tokenized: Vec<TokenizedText>) {
        lock(&self.state).lanes.put_back(rest, tokenized);
    }

    /// Refuses further jobs. Those inside are still computed.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }

    /// How many texts wait.
    pub(crate) fn queued_texts(&self) -> usize {
        lock(&self.state).lanes.texts()
    }
}

#[derive(Debug, Default)]
struct QueueState {
    lanes: RowLanes,
    waiting_workers: usize,
    closed: bool,
}
