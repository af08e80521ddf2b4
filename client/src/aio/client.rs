//! The client: one method for each question.

use super::call::call;
use super::driver::drive;
use super::lease::Lease;
use super::model::EmbeddingModel;
use crate::answer::Answer;
use crate::builder::ClientBuilder;
use crate::error::{ConnectError, Error};
use crate::line::{Line, Link, Tries};
use crate::question::{Question, model_id};
use crate::start::StartOptions;
use crate::view::Embeddings;
use emberd_protocol::{
    EmbedOptions, Event, ModelKind, ModelSummary, Request, Status, Target, Welcome,
};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Mutex;

/// A way to the daemon, for futures. Clones share one connection.
///
/// As [`crate::Client`] otherwise: no call has a time limit, requests that change nothing are
/// repeated after a restart, and so on. Use `tokio::time::timeout` around a call to bound it: the
/// request is cancelled then.
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
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    line: Arc<Line>,
    /// Held by the future that connects again: the others wait without a thread.
    reconnecting: Mutex<()>,
}

impl ClientBuilder {
    /// As [`ClientBuilder::connect`], for futures.
    ///
    /// # Errors
    /// [`Error::Connect`].
    ///
    /// # Panics
    /// Outside of a runtime of tokio, or in one whose I/O is not enabled.
    pub async fn connect_async(self) -> Result<Client, Error> {
        aside(move || self.dial(drive)).await.map(Client::over)
    }

    /// As [`ClientBuilder::connect_to`], for futures.
    ///
    /// # Errors
    /// [`Error::Connect`].
    ///
    /// # Panics
    /// Outside of a runtime of tokio, or in one whose I/O is not enabled.
    pub async fn connect_to_async(self, path: impl AsRef<Path>) -> Result<Client, Error> {
        let path = path.as_ref().to_owned();
        aside(move || self.dial_to(&path, drive)).await.map(Client::over)
    }

    /// As [`ClientBuilder::connect_or_start`], for futures. Dropped meanwhile, it goes on in the
    /// background: a daemon may be started nevertheless.
    ///
    /// # Errors
    /// [`Error::Connect`].
    ///
    /// # Panics
    /// Outside of a runtime of tokio, or in one whose I/O is not enabled.
    pub async fn connect_or_start_async(self, start: StartOptions) -> Result<Client, Error> {
        aside(move || self.dial_or_start(start, drive)).await.map(Client::over)
    }
}

/// Does what blocks on a thread of the runtime that may.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => {
            let source = io::Error::other("the runtime ends");
            Err(ConnectError::Socket { path: PathBuf::new(), source }.into())
        }
    }
}

impl Client {
    /// As [`crate::Client::connect`].
    ///
    /// # Errors
    /// [`Error::Connect`].
    ///
    /// # Panics
    /// Outside of a runtime of tokio, or in one whose I/O is not enabled.
    pub async fn connect() -> Result<Self, Error> {
        Self::builder().connect_async().await
    }

    /// As [`crate::Client::connect_to`].
    ///
    /// # Errors
    /// [`Error::Connect`].
    ///
    /// # Panics
    /// Outside of a runtime of tokio, or in one whose I/O is not enabled.
    pub async fn connect_to(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::builder().connect_to_async(path).await
    }

    /// As [`crate::Client::connect_or_start`].
    ///
    /// # Errors
    /// [`Error::Connect`].
    ///
    /// # Panics
    /// Outside of a runtime of tokio, or in one whose I/O is not enabled.
    pub async fn connect_or_start() -> Result<Self, Error> {
        Self::builder().connect_or_start_async(StartOptions::default()).await
    }

    /// Sets up a client that is not the usual one; connect it with
    /// [`ClientBuilder::connect_async`] and the like.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    fn over(line: Line) -> Self {
        let reconnecting = Mutex::default();
        Self { shared: Arc::new(Shared { line: Arc::new(line), reconnecting }) }
    }

    pub(super) fn line(&self) -> &Arc<Line> {
        &self.shared.line
    }

    /// The present connection, made anew if the last one died.
    pub(super) async fn link(&self) -> Result<Link, Error> {
        if let Some(link) = self.line().usable() {
            return Ok(link);
        }
        let _turn = self.shared.reconnecting.lock().await;
        if let Some(link) = self.line().usable() {
            return Ok(link);
        }
        let line = Arc::clone(self.line());
        aside(move || line.link()).await
    }

    /// As [`crate::Client::ping`].
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub async fn ping(&self) -> Result<(), Error> {
        self.ask(Request::Ping).await?.pong()
    }

    /// As [`crate::Client::daemon`].
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub async fn daemon(&self) -> Result<Welcome, Error> {
        Ok(self.link().await?.connection.welcome().clone())
    }

    /// As [`crate::Client::model`].
    ///
    /// # Errors
    /// As there.
    pub async fn model(&self, id: &str) -> Result<Lease, Error> {
        Lease::acquire(self, id, None, false, |_| {}).await
    }

    /// As [`crate::Client::model_with`]; events are called where the future is polled.
    ///
    /// # Errors
    /// As there.
    pub async fn model_with(&self, id: &str, on_event: impl FnMut(Event)) -> Result<Lease, Error> {
        Lease::acquire(self, id, None, true, on_event).await
    }

    /// As [`crate::Client::embedding_model`].
    ///
    /// # Errors
    /// As there.
    pub async fn embedding_model(&self, id: &str) -> Result<EmbeddingModel, Error> {
        let kind = Some(ModelKind::Embedding);
        Lease::acquire(self, id, kind, false, |_| {}).await.map(EmbeddingModel::new)
    }

    /// As [`crate::Client::embedding_model_with`]; events are called where the future is polled.
    ///
    /// # Errors
    /// As there.
    pub async fn embedding_model_with(
        &self,
        id: &str,
        on_event: impl FnMut(Event),
    ) -> Result<EmbeddingModel, Error> {
        let kind = Some(ModelKind::Embedding);
        Lease::acquire(self, id, kind, true, on_event).await.map(EmbeddingModel::new)
    }

    /// As [`crate::Client::generate_embeddings`].
    ///
    /// # Errors
    /// As there.
    pub async fn generate_embeddings<T: AsRef<str>>(
        &self,
        texts: &[T],
        id: &str,
    ) -> Result<Embeddings, Error> {
        self.generate_embeddings_with(texts, id, &EmbedOptions::default()).await
    }

    /// As [`crate::Client::generate_embeddings_with`].
    ///
    /// # Errors
    /// As there.
    pub async fn generate_embeddings_with<T: AsRef<str>>(
        &self,
        texts: &[T],
        id: &str,
        options: &EmbedOptions,
    ) -> Result<Embeddings, Error> {
        let mut question = Question::embed(Target::Model(model_id(id)?), texts, options)?;
        self.ask_on(&mut question, |_| {}).await?.1.rows(texts.len())
    }

    /// As [`crate::Client::status`].
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub async fn status(&self) -> Result<Status, Error> {
        self.ask(Request::Status).await?.status()
    }

    /// As [`crate::Client::available_models`].
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub async fn available_models(&self) -> Result<Vec<ModelSummary>, Error> {
        self.ask(Request::AvailableModels).await?.models()
    }

    /// As [`crate::Client::model_config`].
    ///
    /// # Errors
    /// `MODEL_NOT_CONFIGURED`.
    pub async fn model_config(&self, id: &str) -> Result<Vec<(String, String)>, Error> {
        self.ask(Request::ModelConfig { model: model_id(id)? }).await?.config()
    }

    pub(super) async fn ask(&self, request: Request) -> Result<Answer, Error> {
        Ok(self.ask_on(&mut Question::new(request)?, |_| {}).await?.1)
    }

    /// Asks, and again where that is safe and the connection was cut off. Tells who answered.
    pub(super) async fn ask_on(
        &self,
        question: &mut Question,
        mut on_event: impl FnMut(Event),
    ) -> Result<(Link, Answer), Error> {
        let is_safe = question.is_safe_to_repeat();
        if !is_safe {
            self.line().look();
        }
        let mut tries = Tries::new(self.line(), is_safe);
        loop {
            let link = self.link().await?;
            self.line().take_again(&link, None);
            let mut on_event = |event: Event| {
                tries.note(&event);
                on_event(event);
            };
            match call(&link.connection, question, &mut on_event).await {
                Ok(answer) => return Ok((link, answer)),
                Err(error) if tries.again(&link, &error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
