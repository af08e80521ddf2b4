//! A lease as both faces hold it: what it is for, and which one it is now.

use crate::answer::Answer;
use crate::connection::Connection;
use crate::error::Error;
use crate::line::{Line, Link};
use crate::lock;
use crate::question::Question;
use emberd_protocol::{
    ErrorCode, Failure, LeaseId, Leased, ModelId, ModelInfo, ModelKind, Request,
};
use std::sync::{Arc, Mutex, Weak};

/// Released when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    line: Arc<Line>,
    model: ModelId,
    kind: Option<ModelKind>,
    /// Never held for long: droppers take it.
    present: Mutex<Present>,
}

#[derive(Debug)]
struct Present {
    /// The connection that took it.
    generation: u64,
    leased: Leased,
    is_released: bool,
}

impl Held {
    pub(crate) fn new(
        line: Arc<Line>,
        model: ModelId,
        kind: Option<ModelKind>,
        link: &Link,
        leased: Leased,
    ) -> Arc<Self> {
        let present = Present { generation: link.generation, leased, is_released: false };
        let held = Arc::new(Self { line, model, kind, present: Mutex::new(present) });
        held.line.note(&held);
        held
    }

    pub(crate) fn info(&self) -> ModelInfo {
        lock(&self.present).leased.model.clone()
    }

    pub(crate) fn id(&self) -> LeaseId {
        lock(&self.present).leased.lease
    }

    /// The lease on this connection, or `None` where it has to be taken again.
    pub(crate) fn on(&self, link: &Link) -> Result<Option<LeaseId>, Error> {
        let present = lock(&self.present);
        // A released one stays released. Its own connection's daemon is asked, and says so.
        if present.generation == link.generation {
            return Ok(Some(present.leased.lease));
        }
        if present.is_released {
            return Err(not_alive(present.leased.lease));
        }
        Ok(None)
    }

    /// Takes it again on this connection if it belongs to one that died. Waits for nothing.
    pub(crate) fn take_again_later(self: &Arc<Self>, link: &Link) {
        if matches!(self.on(link), Ok(None))
            && let Ok(mut question) = self.question()
        {
            let taker = Taker { held: Arc::downgrade(self), generation: link.generation };
            link.connection.ask_later(&mut question, taker);
        }
    }

    /// What takes it again.
    pub(crate) fn question(&self) -> Result<Question, Error> {
        Question::acquire(self.model.clone(), self.kind.clone(), false)
    }

    /// It was taken again on this connection.
    pub(crate) fn taken(&self, link: &Link, leased: Leased) -> Result<LeaseId, Error> {
        let mut present = lock(&self.present);
        if present.is_released {
            // Meanwhile nobody wants it any more.
            link.connection.tell(&Request::Release { lease: leased.lease });
            return Err(not_alive(present.leased.lease));
        }
        if present.generation >= link.generation {
            // Whoever used it meanwhile has taken it: one is enough.
            link.connection.tell(&Request::Release { lease: leased.lease });
            return Ok(present.leased.lease);
        }
        present.generation = link.generation;
        present.leased = leased;
        Ok(present.leased.lease)
    }

    /// The question that releases it, and where; `None` where it ended with its connection.
    pub(crate) fn release(&self) -> Result<Option<(Link, Question)>, Error> {
        let (lease, generation, was_released) = {
            let mut present = lock(&self.present);
            let was_released = std::mem::replace(&mut present.is_released, true);
            (present.leased.lease, present.generation, was_released)
        };
        match self.line.link_of(generation) {
            Some(link) => Ok(Some((link, Question::new(Request::Release { lease })?))),
            None if !was_released => Ok(None),
            None => Err(not_alive(lease)),
        }
    }
}

/// Waits for a lease that is taken again before anybody uses it.
#[derive(Debug)]
pub(crate) struct Taker {
    held: Weak<Held>,
    generation: u64,
}

impl Taker {
    /// The answer has come. A failure is told when the lease is used, which asks for it once more.
    pub(crate) fn take(self, connection: &Arc<Connection>, answer: Answer) {
        let Some(lease) = answer.lease() else { return };
        let link = Link { connection: Arc::clone(connection), generation: self.generation };
        match (self.held.upgrade(), answer.leased()) {
            // A released one has given the new one back.
            (Some(held), Ok(leased)) => drop(held.taken(&link, leased)),
            _ => connection.tell(&Request::Release { lease }),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let present = lock(&self.present);
        if present.is_released {
            return;
        }
        if let Some(link) = self.line.link_of(present.generation) {
            link.connection.tell(&Request::Release { lease: present.leased.lease });
        }
    }
}

/// What the daemon says of a lease that ended, for one whose connection is gone: on another the
/// same number may be another lease.
fn not_alive(lease: LeaseId) -> Error {
    let message = format!("lease {lease} was released: acquire the model again");
    Failure::new(ErrorCode::ReferenceError, message).into()
}
