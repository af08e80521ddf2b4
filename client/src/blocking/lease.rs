//! A counted right to a loaded model.

use super::client::Client;
use super::face::{BlockingFace, block_on};
use crate::calls::lease_handle::LeaseHandle;
use crate::error::Error;
use crate::wire::request::PreparedRequest;
use crate::wire::response::ReceivedResponse;
use emberd_protocol::{Event, LeaseId, Method, ModelInfo, ModelKind};
use std::sync::Arc;

/// Keeps a model in the daemon's memory.
///
/// Clones count within this process: the lease is released when the last clone is dropped or the
/// process ends. After a restart of the daemon, the first request to the new daemon renews all
/// leases of a client. A lease that cannot be renewed reports the reason when it is used.
#[derive(Debug, Clone)]
pub struct Lease {
    client: Client,
    handle: Arc<LeaseHandle<BlockingFace>>,
}

impl Lease {
    /// The model, as it was when the lease was taken.
    #[must_use]
    pub fn info(&self) -> ModelInfo {
        self.handle.info()
    }

    /// The daemon's number for the lease.
    #[must_use]
    pub fn id(&self) -> LeaseId {
        self.handle.id()
    }

    /// The client that took the lease.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Releases the lease for all clones, and waits until the daemon has released it.
    ///
    /// # Errors
    /// `REFERENCE_ERROR` the second time. [`Error::Transport`] when the connection died during the
    /// call, which ended the lease.
    pub fn release(&self) -> Result<(), Error> {
        block_on(self.handle.release())
    }

    pub(super) fn acquire(
        client: &Client,
        id: &str,
        kind: Option<ModelKind>,
    ) -> Result<Self, Error> {
        let handle = Arc::new(block_on(client.caller().acquire(id, kind))?);
        Ok(Self { client: client.clone(), handle })
    }

    pub(super) fn acquire_with(
        client: &Client,
        id: &str,
        kind: Option<ModelKind>,
        on_event: impl FnMut(Event),
    ) -> Result<Self, Error> {
        let handle = Arc::new(block_on(client.caller().acquire_with(id, kind, on_event))?);
        Ok(Self { client: client.clone(), handle })
    }

    /// Fails unless the model has a method.
    pub(super) fn require(&self, method: &Method) -> Result<(), Error> {
        self.handle.require(method)
    }

    pub(super) fn send(&self, request: PreparedRequest) -> Result<ReceivedResponse, Error> {
        self.send_with(request, |_| {})
    }

    pub(super) fn send_with(
        &self,
        request: PreparedRequest,
        on_event: impl FnMut(Event),
    ) -> Result<ReceivedResponse, Error> {
        block_on(self.client.caller().send_leased(&self.handle, request, on_event))
    }
}

impl Client {
    /// A lease on any model, which is loaded first if necessary. [`Lease::info`] tells its kind.
    ///
    /// # Errors
    /// `MODEL_NOT_CONFIGURED`, `MODEL_LOAD_ERROR`, `LIMIT_EXCEEDED` (too many leases).
    pub fn model(&self, id: &str) -> Result<Lease, Error> {
        Lease::acquire(self, id, None)
    }

    /// As [`Client::model`], reporting the progress of the load. A model that is already loaded has
    /// no events. `on_event` is called on this thread, with the events in order; if they come
    /// faster than it returns, some are skipped. If the request is repeated after a restart, they
    /// begin again.
    ///
    /// # Errors
    /// As [`Client::model`].
    pub fn model_with(&self, id: &str, on_event: impl FnMut(Event)) -> Result<Lease, Error> {
        Lease::acquire_with(self, id, None, on_event)
    }
}
