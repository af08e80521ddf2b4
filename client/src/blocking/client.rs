//! The client: connecting, and what the daemon reports about itself.

use super::face::{BlockingFace, block_on};
use crate::builder::ClientBuilder;
use crate::calls::caller::Caller;
use crate::error::Error;
use crate::transport::StartOptions;
use crate::transport::link::Link;
use crate::wire::connection::Connection;
use crate::wire::request::PreparedRequest;
use crate::wire::response::ReceivedResponse;
use emberd_protocol::{Event, ModelSummary, Request, Status, Welcome};
use std::io;
use std::path::Path;
use std::sync::Arc;

#[cfg(doc)]
use crate::error::ConnectError;

/// A client of a daemon. Clones share one connection, and may be used from many threads.
///
/// No call has a time limit: loading a model may take minutes. Connecting has one
/// ([`ClientBuilder::handshake_timeout`]), and so has connecting again
/// ([`ClientBuilder::reconnect_patience`]).
///
/// ```no_run
/// let client = emberd_client::Client::connect()?;
/// for model in client.available_models()? {
///     println!("{}: {}", model.id, model.state);
/// }
/// # Ok::<(), emberd_client::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    caller: Arc<Caller<BlockingFace>>,
}

impl Client {
    /// Connects to the default socket; see [`ClientBuilder::connect`].
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub fn connect() -> Result<Self, Error> {
        Self::builder().connect()
    }

    /// Connects to a socket.
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub fn connect_to(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::builder().connect_to(path)
    }

    /// Connects to the user's own daemon, and starts one if none runs; see
    /// [`ClientBuilder::connect_or_start`].
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub fn connect_or_start() -> Result<Self, Error> {
        Self::builder().connect_or_start(StartOptions::default())
    }

    /// Sets up a client with other options than the defaults.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Sends an empty request, which measures a round trip.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub fn ping(&self) -> Result<(), Error> {
        self.request(Request::Ping)?.pong()
    }

    /// The daemon's version and limits, as it sent them when it welcomed the current connection.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub fn daemon(&self) -> Result<Welcome, Error> {
        Ok(block_on(self.caller.session())?.connection.welcome().clone())
    }

    /// What the daemon holds in memory and is doing.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub fn status(&self) -> Result<Status, Error> {
        self.request(Request::Status)?.status()
    }

    /// The models that the daemon knows, ordered by id.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub fn available_models(&self) -> Result<Vec<ModelSummary>, Error> {
        self.request(Request::AvailableModels)?.models()
    }

    pub(super) fn caller(&self) -> &Caller<BlockingFace> {
        &self.caller
    }

    pub(super) fn request(&self, request: Request) -> Result<ReceivedResponse, Error> {
        block_on(self.caller.request(request))
    }

    pub(super) fn send(&self, request: PreparedRequest) -> Result<ReceivedResponse, Error> {
        self.send_with(request, |_| {})
    }

    pub(super) fn send_with(
        &self,
        request: PreparedRequest,
        on_event: impl FnMut(Event),
    ) -> Result<ReceivedResponse, Error> {
        block_on(self.caller.send(request, on_event))
    }

    fn over(link: Link) -> Self {
        Self { caller: Arc::new(Caller::new(link)) }
    }
}

impl ClientBuilder {
    /// Connects to `$EMBERD_SOCKET`; else to the user's daemon
    /// (`$XDG_RUNTIME_DIR/emberd/emberd.sock`) if it answers, else to the machine's
    /// (`/run/emberd/emberd.sock`).
    ///
    /// # Errors
    /// [`Error::Connect`]. If no path has a daemon, the error names the first of them; any other
    /// failure ends the search.
    pub fn connect(self) -> Result<Client, Error> {
        self.link(nothing_to_set_up).map(Client::over)
    }

    /// Connects to a socket.
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub fn connect_to(self, path: impl AsRef<Path>) -> Result<Client, Error> {
        self.link_to(path.as_ref(), nothing_to_set_up).map(Client::over)
    }

    /// Connects to the user's own daemon, and starts one if none answers: for machines without
    /// systemd.
    ///
    /// The socket is the first one that [`ClientBuilder::connect`] tries (or
    /// [`StartOptions::socket`]). If no daemon answers there, this runs `emberd serve --detach
    /// --socket PATH`, and connects once the daemon is ready. The folder of the socket is created
    /// if it is missing, for this user alone (mode 0700). If many clients start at once, one of
    /// them runs the program (the lock on `PATH.start` decides), and all connect to the same
    /// daemon, which outlives them. The program's standard error is kept in `PATH.start`.
    ///
    /// A daemon that runs but refuses this client is not replaced. A daemon that dies later is not
    /// started again: call this once more.
    ///
    /// # Errors
    /// [`ConnectError::Start`] when no program is found, when it fails, or when it takes too long;
    /// else as [`ClientBuilder::connect`].
    pub fn connect_or_start(self, start: StartOptions) -> Result<Client, Error> {
        self.link_or_start(start, nothing_to_set_up).map(Client::over)
    }
}

fn nothing_to_set_up(_: &Arc<Connection>) -> io::Result<()> {
    Ok(())
}
