//! The client: one method for each question.

use crate::answer::Answer;
use crate::builder::ClientBuilder;
use crate::error::Error;
use crate::lease::Lease;
use crate::line::{Line, Link, Tries};
use crate::model::EmbeddingModel;
use crate::question::{Question, model_id};
use crate::start::StartOptions;
use crate::view::Embeddings;
use emberd_protocol::{
    EmbedOptions, Event, ModelKind, ModelSummary, Request, Status, Target, Welcome,
};
use std::path::Path;
use std::sync::Arc;

/// A way to the daemon. Clones share one connection, and may be used from many threads.
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
    line: Arc<Line>,
}

impl Client {
    /// Connects where a daemon is expected; see [`ClientBuilder::connect`].
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

    /// Connects to the user's own daemon, and starts it where none runs; see
    /// [`ClientBuilder::connect_or_start`].
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub fn connect_or_start() -> Result<Self, Error> {
        Self::builder().connect_or_start(StartOptions::default())
    }

    /// Sets up a client that is not the usual one.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) fn over(line: Line) -> Self {
        Self { line: Arc::new(line) }
    }

    pub(crate) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// Asks for nothing: the way there and back.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub fn ping(&self) -> Result<(), Error> {
        self.ask(Request::Ping)?.pong()
    }

    /// What the daemon said of itself and its limits when it took this connection.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub fn daemon(&self) -> Result<Welcome, Error> {
        Ok(self.line.link()?.connection.welcome().clone())
    }

    /// A lease on any model, which is loaded first if need be; it tells its kind.
    ///
    /// # Errors
    /// `MODEL_NOT_CONFIGURED`, `MODEL_LOAD_ERROR`, `LIMIT_EXCEEDED` (too many leases).
    pub fn model(&self, id: &str) -> Result<Lease, Error> {
        Lease::acquire(self.clone(), model_id(id)?, None, None)
    }

    /// As [`Client::model`], told how far the load is. A model that is loaded already has nothing
    /// to tell. Events are called in order, on this thread; when they come faster than they are
    /// taken, some are left out. When the request is repeated after a restart, they begin anew.
    ///
    /// # Errors
    /// As [`Client::model`].
    pub fn model_with(&self, id: &str, mut on_event: impl FnMut(Event)) -> Result<Lease, Error> {
        Lease::acquire(self.clone(), model_id(id)?, None, Some(&mut on_event))
    }

    /// A lease on a model that turns texts into rows.
    ///
    /// # Errors
    /// As [`Client::model`], and `WRONG_MODEL_TYPE`.
    pub fn embedding_model(&self, id: &str) -> Result<EmbeddingModel, Error> {
        let kind = Some(ModelKind::Embedding);
        Lease::acquire(self.clone(), model_id(id)?, kind, None).map(EmbeddingModel::new)
    }

    /// As [`Client::embedding_model`], told how far the load is: see [`Client::model_with`].
    ///
    /// # Errors
    /// As [`Client::embedding_model`].
    pub fn embedding_model_with(
        &self,
        id: &str,
        mut on_event: impl FnMut(Event),
    ) -> Result<EmbeddingModel, Error> {
        let kind = Some(ModelKind::Embedding);
        let lease = Lease::acquire(self.clone(), model_id(id)?, kind, Some(&mut on_event))?;
        Ok(EmbeddingModel::new(lease))
    }

    /// Rows for texts, with a lease for the call only.
    ///
    /// # Errors
    /// As [`Client::embedding_model`] and [`EmbeddingModel::embed`].
    pub fn generate_embeddings<T: AsRef<str>>(
        &self,
        texts: &[T],
        id: &str,
    ) -> Result<Embeddings, Error> {
        self.generate_embeddings_with(texts, id, &EmbedOptions::default())
    }

    /// As [`Client::generate_embeddings`], with options: see [`EmbeddingModel::embed_with`].
    ///
    /// # Errors
    /// As [`Client::embedding_model`] and [`EmbeddingModel::embed_with`].
    pub fn generate_embeddings_with<T: AsRef<str>>(
        &self,
        texts: &[T],
        id: &str,
        options: &EmbedOptions,
    ) -> Result<Embeddings, Error> {
        let mut question = Question::embed(Target::Model(model_id(id)?), texts, options)?;
        self.ask_on(&mut question, None)?.1.rows(texts.len())
    }

    /// What the daemon holds and does.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub fn status(&self) -> Result<Status, Error> {
        self.ask(Request::Status)?.status()
    }

    /// The models that the daemon knows, ordered by id.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub fn available_models(&self) -> Result<Vec<ModelSummary>, Error> {
        self.ask(Request::AvailableModels)?.models()
    }

    /// How a model is configured: keys below `models.<id>.`, and their values as TOML.
    ///
    /// # Errors
    /// `MODEL_NOT_CONFIGURED`.
    pub fn model_config(&self, id: &str) -> Result<Vec<(String, String)>, Error> {
        self.ask(Request::ModelConfig { model: model_id(id)? })?.config()
    }

    pub(crate) fn ask(&self, request: Request) -> Result<Answer, Error> {
        Ok(self.ask_on(&mut Question::new(request)?, None)?.1)
    }

    /// Asks, and again where that is safe and the connection was cut off. Tells who answered.
    pub(crate) fn ask_on(
        &self,
        question: &mut Question,
        on_event: Option<&mut dyn FnMut(Event)>,
    ) -> Result<(Link, Answer), Error> {
        let mut nobody = |_| {};
        let on_event: &mut dyn FnMut(Event) = match on_event {
            Some(on_event) => on_event,
            None => &mut nobody,
        };
        let is_safe = question.is_safe_to_repeat();
        if !is_safe {
            self.line.look();
        }
        let mut tries = Tries::new(&self.line, is_safe);
        loop {
            let link = self.line.link()?;
            self.line.take_again(&link, None);
            let mut on_event = |event: Event| {
                tries.note(&event);
                on_event(event);
            };
            match link.connection.call(question, &mut on_event) {
                Ok(answer) => return Ok((link, answer)),
                Err(error) if tries.again(&link, &error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
