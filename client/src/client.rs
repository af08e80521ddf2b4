//! The client: one method for each question.

use crate::builder::{ClientBuilder, Options};
use crate::connection::{Answer, Connection};
use crate::error::{Error, ProtocolError};
use crate::lease::Lease;
use crate::lock;
use crate::model::EmbeddingModel;
use crate::view::Embeddings;
use emberd_protocol::{
    Delivery, EmbedRequest, ErrorCode, Failure, ModelId, ModelKind, ModelSummary, Request,
    Response, Status, Target, TextBuilder, Welcome,
};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A way to the daemon. Clones share one connection, and may be used from many threads.
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
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    options: Options,
    /// Never held for long: droppers take it.
    link: Mutex<Link>,
    /// Held by the thread that connects again.
    reconnecting: Mutex<()>,
}

/// The present connection, and which one it is: leases belong to the one that took them.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) connection: Arc<Connection>,
    pub(crate) generation: u64,
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

    /// Sets up a client that is not the usual one.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) fn open(path: PathBuf, options: Options) -> Result<Self, Error> {
        let connection = Connection::open(&path, &options)?;
        let link = Mutex::new(Link { connection, generation: 0 });
        Ok(Self {
            shared: Arc::new(Shared { path, options, link, reconnecting: Mutex::default() }),
        })
    }

    /// The present connection, made anew if the last one died (or belongs to the process that
    /// this one was forked from).
    pub(crate) fn link(&self) -> Result<Link, Error> {
        if let Some(link) = self.usable_link() {
            return Ok(link);
        }
        let _turn = lock(&self.shared.reconnecting);
        // Another thread may have done it meanwhile.
        if let Some(link) = self.usable_link() {
            return Ok(link);
        }
        let connection = Connection::open(&self.shared.path, &self.shared.options)?;
        let mut link = lock(&self.shared.link);
        *link = Link { connection, generation: link.generation + 1 };
        Ok(link.clone())
    }

    fn usable_link(&self) -> Option<Link> {
        let link = lock(&self.shared.link);
        link.connection.is_usable().then(|| link.clone())
    }

    /// The connection of a generation, if it is still the present one.
    pub(crate) fn link_of(&self, generation: u64) -> Option<Link> {
        let link = lock(&self.shared.link);
        let is_present = link.generation == generation && link.connection.is_usable();
        is_present.then(|| link.clone())
    }

    /// Asks for nothing: the way there and back.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub fn ping(&self) -> Result<(), Error> {
        match self.ask(&Request::Ping)? {
            Response::Pong => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// What the daemon said of itself and its limits when it took this connection.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub fn daemon(&self) -> Result<Welcome, Error> {
        Ok(self.link()?.connection.welcome().clone())
    }

    /// A lease on any model, which is loaded first if need be; it tells its kind.
    ///
    /// # Errors
    /// `MODEL_NOT_CONFIGURED`, `MODEL_LOAD_ERROR`, `LIMIT_EXCEEDED` (too many leases).
    pub fn model(&self, id: &str) -> Result<Lease, Error> {
        Lease::acquire(self.clone(), model_id(id)?, None)
    }

    /// A lease on a model that turns texts into rows.
    ///
    /// # Errors
    /// As [`Client::model`], and `WRONG_MODEL_TYPE`.
    pub fn embedding_model(&self, id: &str) -> Result<EmbeddingModel, Error> {
        let lease = Lease::acquire(self.clone(), model_id(id)?, Some(ModelKind::Embedding))?;
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
        let target = Target::Model(model_id(id)?);
        embed(&self.link()?.connection, target, texts)
    }

    /// What the daemon holds and does.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub fn status(&self) -> Result<Status, Error> {
        match self.ask(&Request::Status)? {
            Response::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    /// The models that the daemon knows, ordered by id.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub fn available_models(&self) -> Result<Vec<ModelSummary>, Error> {
        match self.ask(&Request::AvailableModels)? {
            Response::AvailableModels(models) => Ok(models),
            other => Err(unexpected(&other)),
        }
    }

    /// How a model is configured: keys below `models.<id>.`, and their values as TOML.
    ///
    /// # Errors
    /// `MODEL_NOT_CONFIGURED`.
    pub fn model_config(&self, id: &str) -> Result<Vec<(String, String)>, Error> {
        match self.ask(&Request::ModelConfig { model: model_id(id)? })? {
            Response::ModelConfig(keys) => Ok(keys),
            other => Err(unexpected(&other)),
        }
    }

    fn ask(&self, request: &Request) -> Result<Response, Error> {
        match self.link()?.connection.call(request, Vec::new())? {
            Answer::Other(response) => Ok(response),
            Answer::Rows(_) => Err(ProtocolError::OutOfPlace("rows").into()),
        }
    }
}

/// Asks for rows.
pub(crate) fn embed<T: AsRef<str>>(
    connection: &Arc<Connection>,
    target: Target,
    texts: &[T],
) -> Result<Embeddings, Error> {
    let over = |message: String| Error::from(Failure::new(ErrorCode::LimitExceeded, message));
    let most = connection.limits().max_texts;
    let count =
        u32::try_from(texts.len()).ok().filter(|count| *count <= most).ok_or_else(|| {
            over(format!(
                "{} texts are more than the {most} of one request: split them",
                texts.len()
            ))
        })?;
    let mut builder = TextBuilder::default();
    for text in texts {
        builder.push(text.as_ref()).map_err(|error| over(error.to_string()))?;
    }
    let request = Request::Embed(EmbedRequest { target, texts: count, delivery: Delivery::Auto });
    match connection.call(&request, builder.into_bytes())? {
        Answer::Rows(rows) if rows.len() == texts.len() => Ok(rows),
        Answer::Rows(_) => Err(ProtocolError::OutOfPlace("another number of rows").into()),
        Answer::Other(response) => Err(unexpected(&response)),
    }
}

/// An id that cannot exist is not configured anywhere: the daemon need not be asked.
fn model_id(id: &str) -> Result<ModelId, Error> {
    ModelId::new(id)
        .map_err(|error| Failure::new(ErrorCode::ModelNotConfigured, error.to_string()).into())
}

pub(crate) fn unexpected(response: &Response) -> Error {
    let name = match response {
        Response::Failed(_) => "a failure",
        Response::Pong => "a pong",
        Response::Leased(_) => "a lease",
        Response::Released => "a release",
        Response::Embedded(_) => "rows",
        Response::AvailableModels(_) => "a list of models",
        Response::ModelConfig(_) => "a model's configuration",
        Response::Status(_) => "a status",
    };
    ProtocolError::OutOfPlace(name).into()
}
