//! A counted right to a loaded model.

use super::client::AsyncClient;
use super::face::AsyncFace;
use crate::calls::lease_handle::LeaseHandle;
use crate::error::Error;
use crate::wire::request::PreparedRequest;
use crate::wire::response::ReceivedResponse;
use emberd_protocol::{Event, LeaseId, Method, ModelInfo, ModelKind};
use std::sync::Arc;

/// Keeps a model in the daemon's memory; as [`crate::Lease`].
///
/// Dropping the last clone releases it, without waiting and without a runtime.
#[derive(Debug, Clone)]
pub struct AsyncLease {
    client: AsyncClient,
    handle: Arc<LeaseHandle<AsyncFace>>,
}

impl AsyncLease {
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
    pub fn client(&self) -> &AsyncClient {
        &self.client
    }

    /// As [`crate::Lease::release`]. Once polled it releases the lease, even if the future is
    /// dropped.
    ///
    /// # Errors
    /// As there.
    pub async fn release(&self) -> Result<(), Error> {
        self.handle.release().await
    }

    pub(super) async fn acquire(
        client: &AsyncClient,
        id: &str,
        kind: Option<ModelKind>,
    ) -> Result<Self, Error> {
        let handle = Arc::new(client.caller().acquire(id, kind).await?);
        Ok(Self { client: client.clone(), handle })
    }

    pub(super) async fn acquire_with(
        client: &AsyncClient,
        id: &str,
        kind: Option<ModelKind>,
        on_event: impl FnMut(Event),
    ) -> Result<Self, Error> {
        let handle = Arc::new(client.caller().acquire_with(id, kind, on_event).await?);
        Ok(Self { client: client.clone(), handle })
    }

    /// Fails unless the model has a method.
    pub(super) fn require(&self, method: &Method) -> Result<(), Error> {
        self.handle.require(method)
    }

    pub(super) async fn send(&self, request: PreparedRequest) -> Result<ReceivedResponse, Error> {
        self.send_with(request, |_| {}).await
    }

    pub(super) async fn send_with(
        &self,
        request: PreparedRequest,
        on_event: impl FnMut(Event),
    ) -> Result<ReceivedResponse, Error> {
        self.client.caller().send_leased(&self.handle, request, on_event).await
    }
}

impl AsyncClient {
    /// As [`crate::Client::model`].
    ///
    /// # Errors
    /// As there.
    pub async fn model(&self, id: &str) -> Result<AsyncLease, Error> {
        AsyncLease::acquire(self, id, None).await
    }

    /// As [`crate::Client::model_with`]; `on_event` is called where the future is polled.
    ///
    /// # Errors
    /// As there.
    pub async fn model_with(
        &self,
        id: &str,
        on_event: impl FnMut(Event),
    ) -> Result<AsyncLease, Error> {
        AsyncLease::acquire_with(self, id, None, on_event).await
    }
}
