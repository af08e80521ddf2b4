//! The requests of a connection that are not answered yet.

use crate::ground::sync::lock;
use std::collections::HashMap;
use std::sync::Mutex;
use tokio::task::{self, AbortHandle};

/// Names one request of a connection. A client may use an id again once it has its answer; the
/// serial number tells such requests apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestKey {
    /// The client's number.
    pub(crate) id: u64,
    /// The daemon's number, never used twice on a connection.
    pub(crate) serial: u64,
}

/// The tasks that work on requests, by the client's id.
///
/// Taking a request out gives the right to answer it: each is answered once, and no task is
/// aborted while it writes its answer.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    running: Mutex<HashMap<u64, RunningRequest>>,
}

impl InFlight {
    /// How many requests are not answered yet.
    pub(crate) fn len(&self) -> usize {
        lock(&self.running).len()
    }

    /// Whether a request with this id is not answered yet.
    pub(crate) fn has_id(&self, id: u64) -> bool {
        lock(&self.running).contains_key(&id)
    }

    /// Whether this very request is not answered yet.
    pub(crate) fn contains(&self, request: RequestKey) -> bool {
        lock(&self.running).get(&request.id).is_some_and(|it| it.serial == request.serial)
    }

    /// Adds a request with the task that `spawn` starts. The task cannot find its request missing,
    /// however quickly it ends.
    pub(crate) fn start(&self, request: RequestKey, spawn: impl FnOnce() -> AbortHandle) {
        let mut running = lock(&self.running);
        let task = spawn();
        running.insert(request.id, RunningRequest { serial: request.serial, task });
    }

    /// Takes out a request whose answer is ready; `false` if it was cancelled before.
    pub(crate) fn finish(&self, request: RequestKey) -> bool {
        let mut running = lock(&self.running);
        let is_there = running.get(&request.id).is_some_and(|it| it.serial == request.serial);
        if is_there {
            running.remove(&request.id);
        }
        is_there
    }

    /// Takes out the request with this id and aborts its task; `false` if it was answered before.
    pub(crate) fn cancel(&self, id: u64) -> bool {
        let Some(running) = lock(&self.running).remove(&id) else { return false };
        running.task.abort();
        true
    }

    /// Takes out the request of a task that panicked, and returns its id.
    pub(crate) fn take_task(&self, task: task::Id) -> Option<u64> {
        let mut running = lock(&self.running);
        let id = running.iter().find(|(_, it)| it.task.id() == task).map(|(id, _)| *id)?;
        running.remove(&id);
        Some(id)
    }
}

#[derive(Debug)]
struct RunningRequest {
    serial: u64,
    task: AbortHandle,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle() -> AbortHandle {
        tokio::spawn(std::future::pending::<()>()).abort_handle()
    }

    #[tokio::test]
    async fn a_cancelled_request_cannot_be_finished_not_even_under_a_new_one_of_its_id() {
        let in_flight = InFlight::default();
        let [old, new] = [1, 2].map(|serial| RequestKey { id: 7, serial });
        in_flight.start(old, idle);
        assert!(in_flight.contains(old) && in_flight.has_id(7));
        assert!(in_flight.cancel(7));
        assert!(!in_flight.cancel(7), "once");
        in_flight.start(new, idle);
        assert!(!in_flight.contains(old) && !in_flight.finish(old));
        assert_eq!(in_flight.len(), 1);
        assert!(in_flight.finish(new));
        assert_eq!(in_flight.len(), 0);
    }

    #[tokio::test]
    async fn the_request_of_a_task_is_found_once() {
        let in_flight = InFlight::default();
        let task = idle();
        in_flight.start(RequestKey { id: 7, serial: 1 }, || task.clone());
        assert_eq!(in_flight.take_task(idle().id()), None);
        assert_eq!(in_flight.take_task(task.id()), Some(7));
        assert_eq!(in_flight.take_task(task.id()), None);
    }
}
