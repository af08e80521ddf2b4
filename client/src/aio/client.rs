//! The client: connecting, and what the daemon says of itself.

use super::driver::drive;
use super::face::{AsyncFace, run_blocking};
use crate::builder::ClientBuilder;
use crate::calls::caller::Caller;
use crate::error::Error;
use crate::transport::StartOptions;
use crate::transport::link::Link;
use crate::wire::request::PreparedRequest;
use crate::wire::response::ReceivedResponse;
use emberd_protocol::{Event, ModelSummary, Request, Status, Welcome};
use std::path::Path;
use std::sync::Arc;

/// A client of a daemon, for futures. Clones share one connection.
///
/// Otherwise as [`crate::Client`]: no call has a time limit, requests that change nothing are
/// repeated after a restart, and so on. Bound a call with `tokio::time::timeout`, which cancels the
/// request when the time is over.
///
/// ```no_run
/// # async fn example() -> Result<(), emberd_client::Error> {
/// let client = emberd_client::aio::Client::connect().await?;
/// for model in client.available_models().await? {
///     println!("{}: {}", model.id, model.state);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct AsyncClient {
    caller: Arc<Caller<AsyncFace>>,
}

impl AsyncClient {
    /// As [`crate::Client::connect`].
    ///
    /// # Errors
    /// [`Error::Connect`].
    ///
    /// # Panics
    /// Outside a tokio runtime, or in one whose I/O is not enabled.
    pub async fn connect() -> Result<Self, Error> {
        Self::builder().connect_async().await
    }

    /// As [`crate::Client::connect_to`].
    ///
    /// # Errors
    /// [`Error::Connect`].
    ///
    /// # Panics
    /// Outside a tokio runtime, or in one whose I/O is not enabled.
    pub async fn connect_to(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::builder().connect_to_async(path).await
    }

    /// As [`crate::Client::connect_or_start`].
    ///
    /// # Errors
    /// [`Error::Connect`].
    ///
    /// # Panics
    /// Outside a tokio runtime, or in one whose I/O is not enabled.
    pub async fn connect_or_start() -> Result<Self, Error> {
        Self::builder().connect_or_start_async(StartOptions::default()).await
    }

    /// Sets up a client with other options than the defaults; connect it with
    /// [`ClientBuilder::connect_async`] and the like.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// As [`crate::Client::ping`].
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub async fn ping(&self) -> Result<(), Error> {
        self.request(Request::Ping).await?.pong()
    }

    /// As [`crate::Client::daemon`].
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub async fn daemon(&self) -> Result<Welcome, Error> {
        Ok(self.caller.session().await?.connection.welcome().clone())
    }

    /// As [`crate::Client::status`].
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub async fn status(&self) -> Result<Status, Error> {
        self.request(Request::Status).await?.status()
    }

    /// As [`crate::Client::available_models`].
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub async fn available_models(&self) -> Result<Vec<ModelSummary>, Error> {
        self.request(Request::AvailableModels).await?.models()
    }

    pub(super) fn caller(&self) -> &Caller<AsyncFace> {
        &self.caller
    }

    pub(super) async fn request(&self, request: Request) -> Result<ReceivedResponse, Error> {
        self.caller.request(request).await
    }

    pub(super) async fn send(&self, request: PreparedRequest) -> Result<ReceivedResponse, Error> {
        self.send_with(request, |_| {}).await
    }

    pub(super) async fn send_with(
        &self,
        request: PreparedRequest,
        on_event: impl FnMut(Event),
    ) -> Result<ReceivedResponse, Error> {
        self.caller.send(request, on_event).await
    }

    fn over(link: Link) -> Self {
        Self { caller: Arc::new(Caller::new(link)) }
    }
}

impl ClientBuilder {
    /// As [`ClientBuilder::connect`], for futures.
    ///
    /// # Errors
    /// [`Error::Connect`].
    ///
    /// # Panics
    /// Outside a tokio runtime, or in one whose I/O is not enabled.
    pub async fn connect_async(self) -> Result<AsyncClient, Error> {
        run_blocking(move || self.link(drive)).await.map(AsyncClient::over)
    }

    /// As [`ClientBuilder::connect_to`], for futures.
    ///
    /// # Errors
    /// [`Error::Connect`].
    ///
    /// # Panics
    /// Outside a tokio runtime, or in one whose I/O is not enabled.
    pub async fn connect_to_async(self, path: impl AsRef<Path>) -> Result<AsyncClient, Error> {
        let path = path.as_ref().to_owned();
        run_blocking(move || self.link_to(&path, drive)).await.map(AsyncClient::over)
    }

    /// As [`ClientBuilder::connect_or_start`], for futures. If the future is dropped, the work goes
    /// on in the background, and a daemon may still be started.
    ///
    /// # Errors
    /// [`Error::Connect`].
    ///
    /// # Panics
    /// Outside a tokio runtime, or in one whose I/O is not enabled.
    pub async fn connect_or_start_async(self, start: StartOptions) -> Result<AsyncClient, Error> {
        run_blocking(move || self.link_or_start(start, drive)).await.map(AsyncClient::over)
    }
}
