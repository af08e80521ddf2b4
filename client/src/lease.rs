//! A counted right to a loaded model.

use crate::client::{Client, Link, unexpected};
use crate::connection::Answer;
use crate::error::{Error, ProtocolError};
use crate::lock;
use emberd_protocol::{
    ErrorCode, Failure, LeaseId, Leased, ModelId, ModelInfo, ModelKind, Request, Response,
};
use std::sync::{Arc, Mutex};

/// Keeps a model in the daemon's memory.
///
/// Clones count locally; the last one dropped releases, and so does the end of the process. When
/// the daemon was restarted, the lease is taken again with its next use.
#[derive(Debug, Clone)]
pub struct Lease {
    held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    client: Client,
    model: ModelId,
    kind: Option<ModelKind>,
    present: Mutex<Present>,
}

#[derive(Debug)]
struct Present {
    /// The connection that took it.
    generation: u64,
    leased: Leased,
    is_released: bool,
}

impl Lease {
    pub(crate) fn acquire(
        client: Client,
        model: ModelId,
        kind: Option<ModelKind>,
    ) -> Result<Self, Error> {
        let link = client.link()?;
        let leased = ask(&link, &model, kind.as_ref())?;
        let present = Present { generation: link.generation, leased, is_released: false };
        Ok(Self { held: Arc::new(Held { client, model, kind, present: Mutex::new(present) }) })
    }

    /// The model, as it was when the lease was taken.
    #[must_use]
    pub fn info(&self) -> ModelInfo {
        lock(&self.held.present).leased.model.clone()
    }

    /// The daemon's number for it.
    #[must_use]
    pub fn id(&self) -> LeaseId {
        lock(&self.held.present).leased.lease
    }

    /// The client that took it.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.held.client
    }

    /// Releases it for all clones, and waits until the daemon has.
    ///
    /// # Errors
    /// `REFERENCE_ERROR` the second time.
    pub fn release(&self) -> Result<(), Error> {
        let (lease, generation, was_released) = {
            let mut present = lock(&self.held.present);
            let was_released = std::mem::replace(&mut present.is_released, true);
            (present.leased.lease, present.generation, was_released)
        };
        let link = match self.held.client.link_of(generation) {
            Some(link) => link,
            // It ended with its connection: there is nothing left to release, once.
            None if !was_released => return Ok(()),
            None => return Err(not_alive(lease)),
        };
        match link.connection.call(&Request::Release { lease }, Vec::new())? {
            Answer::Other(Response::Released) => Ok(()),
            Answer::Other(other) => Err(unexpected(&other)),
            Answer::Rows(_) => Err(ProtocolError::OutOfPlace("rows").into()),
        }
    }

    /// The connection and the lease to use now; taken again if its connection has died.
    pub(crate) fn present(&self) -> Result<(Link, LeaseId), Error> {
        let link = self.held.client.link()?;
        let mut present = lock(&self.held.present);
        // A released one stays released. Its own connection's daemon is asked, and says so.
        if present.generation != link.generation {
            if present.is_released {
                return Err(not_alive(present.leased.lease));
            }
            present.leased = ask(&link, &self.held.model, self.held.kind.as_ref())?;
            present.generation = link.generation;
        }
        Ok((link, present.leased.lease))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let present = lock(&self.present);
        if present.is_released {
            return;
        }
        if let Some(link) = self.client.link_of(present.generation) {
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

fn ask(link: &Link, model: &ModelId, kind: Option<&ModelKind>) -> Result<Leased, Error> {
    let request = Request::Acquire { model: model.clone(), kind: kind.cloned() };
    match link.connection.call(&request, Vec::new())? {
        Answer::Other(Response::Leased(leased)) => Ok(leased),
        Answer::Other(other) => Err(unexpected(&other)),
        Answer::Rows(_) => Err(ProtocolError::OutOfPlace("rows").into()),
    }
}
