//! Leases, uses and preloads: how requests wait for a model.

use crate::ground::connection_id::ConnectionId;
use crate::models::acquire_error::AcquireError;
use crate::models::lease::LeaseError;
use crate::models::registry::grants::{HeldLease, Use};
use crate::models::registry::state::{Inner, Registry};
use crate::models::registry::waiting::{Events, Grant, Outcome};
use crate::models::scheduler::{LeaseUse, WaiterId, Want};
use crate::models::slot::ModelSlot;
use emberd_protocol::{LeaseId, ModelId, Preloaded};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

impl Registry {
    /// Takes a lease, and loads its model if need be.
    ///
    /// # Errors
    /// When the model cannot be loaded, or the connection holds too many leases.
    pub(crate) async fn lease(
        self: &Arc<Self>,
        connection: ConnectionId,
        model: &ModelId,
        events: Option<Events>,
    ) -> Result<HeldLease, AcquireError> {
        self.wait(model, Want::Lease(connection), events).await
    }

    /// Takes a model for one request, and loads it if need be.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub(crate) async fn use_model(self: &Arc<Self>, model: &ModelId) -> Result<Use, AcquireError> {
        self.wait(model, Want::Use, None).await
    }

    /// Takes the model of a lease for one request. Loads it again if it was unloaded, which happens
    /// if leases do not keep models in memory.
    ///
    /// # Errors
    /// When the connection does not hold the lease, or the model cannot be loaded again.
    pub(crate) async fn use_lease(
        self: &Arc<Self>,
        connection: ConnectionId,
        lease: LeaseId,
    ) -> Result<Use, AcquireError> {
        let (model, waiting) = {
            let mut inner = self.inner();
            let model = inner.scheduler.leases().model_of(connection, lease)?.clone();
            match inner.scheduler.use_lease(connection, lease, Instant::now())? {
                LeaseUse::Now(instance) => {
                    let resident = inner.resident.get(&instance);
                    let model = resident.ok_or(AcquireError::Defect("an instance has no model"))?;
                    return Ok(Use::new(Arc::clone(self) as _, instance, model.user()));
                }
                LeaseUse::Wait(id) => (model, self.enter(&mut inner, id, None)),
            }
        };
        self.act();
        waiting.answer(&model).await
    }

    /// Brings a model into memory.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub(crate) async fn preload(
        self: &Arc<Self>,
        slot: &ModelSlot,
        events: Option<Events>,
    ) -> Result<Preloaded, AcquireError> {
        self.wait(&slot.id, Want::Preload, events).await
    }

    /// Ends a lease.
    ///
    /// # Errors
    /// When the connection does not hold it.
    pub(crate) fn release(
        self: &Arc<Self>,
        connection: ConnectionId,
        lease: LeaseId,
    ) -> Result<(), LeaseError> {
        self.change(|inner| inner.scheduler.release(connection, lease, Instant::now()))
    }

    /// Ends all leases of a connection. Returns their number.
    pub(crate) fn end_connection(self: &Arc<Self>, connection: ConnectionId) -> usize {
        self.change(|inner| inner.scheduler.end_connection(connection, Instant::now()))
    }

    async fn wait<G: Grant>(
        self: &Arc<Self>,
        model: &ModelId,
        want: Want,
        events: Option<Events>,
    ) -> Result<G, AcquireError> {
        let waiting = {
            let mut inner = self.inner();
            let id = inner.scheduler.ask(model, want, Instant::now());
            self.enter(&mut inner, id, events)
        };
        self.act();
        waiting.answer(model).await
    }

    fn enter<G: Grant>(
        self: &Arc<Self>,
        inner: &mut Inner,
        id: WaiterId,
        events: Option<Events>,
    ) -> InQueue<G> {
        let receiver = inner.waiting.enter(id, events);
        InQueue { registry: Arc::clone(self), id, receiver }
    }
}

/// A waiter; it leaves when dropped.
struct InQueue<G: Grant> {
    registry: Arc<Registry>,
    id: WaiterId,
    receiver: oneshot::Receiver<Outcome<G>>,
}

impl<G: Grant> InQueue<G> {
    async fn answer(mut self, model: &ModelId) -> Result<G, AcquireError> {
        match (&mut self.receiver).await {
            Ok(answer) => answer.map_err(|error| AcquireError::of_waiter(model, error)),
            Err(_) => Err(AcquireError::Defect("a waiter was forgotten")),
        }
    }
}

impl<G: Grant> Drop for InQueue<G> {
    fn drop(&mut self) {
        self.registry.change(|inner| {
            if inner.waiting.leave::<G>(self.id) {
                inner.scheduler.leave(self.id, Instant::now());
            }
        });
    }
}
