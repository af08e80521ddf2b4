//! From a request to its handler.

use crate::connection::session::Connection;
use crate::daemon::Shared;
use crate::models::registry::{Events, Use};
use crate::models::slot::ModelSlot;
use crate::request::events::News;
use crate::request::failure::RequestError;
use crate::request::latency::Kind;
use crate::request::{embed, rerank, status, text};
use crate::segment::InlineShare;
use emberd_protocol::{
    Frame, LeaseId, Leased, Method, ModelId, ModelInfo, ModelKind, ModelSummary, Request, Response,
    Target, TextBlock,
};
use std::pin::Pin;
use std::sync::Arc;

/// What goes back to the client.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// Inline rows.
    pub(crate) tail: Vec<u8>,
    /// The right to hold them, until they are written.
    pub(crate) inline: Option<Box<InlineShare>>,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self { response, tail: Vec::new(), inline: None }
    }
}

/// The waiting part of a request.
pub(crate) type Work = Pin<Box<dyn Future<Output = Result<Answer, RequestError>> + Send>>;

/// How a request is answered.
#[expect(clippy::large_enum_variant, reason = "it is moved once, to where it is answered")]
pub(crate) enum Handled {
    /// At once: nothing is waited for.
    Now(Result<Answer, RequestError>),
    /// By a task.
    Later(Work),
}

/// Decodes a request and finds its handler, and tells of which kind it is. `news` is the way to the
/// client for news of it.
pub(crate) fn handle(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    frame: Frame,
    news: News<'_>,
) -> (Kind, Handled) {
    match decode(frame) {
        Ok((request, tail)) => (Kind::of(&request), route(shared, connection, request, tail, news)),
        Err(error) => (Kind::Other, Handled::Now(Err(error))),
    }
}

fn decode(frame: Frame) -> Result<(Request, Vec<u8>), RequestError> {
    let request: Request = frame.decode()?;
    if !computes(&request) && !frame.tail.is_empty() {
        return Err(RequestError::UnexpectedTail { len_bytes: frame.tail.len() });
    }
    Ok((request, frame.tail))
}

fn route(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    request: Request,
    tail: Vec<u8>,
    news: News<'_>,
) -> Handled {
    let brings_work =
        computes(&request) || matches!(request, Request::Acquire { .. } | Request::Preload { .. });
    if brings_work && *shared.draining.borrow() {
        return Handled::Now(Err(RequestError::ShuttingDown));
    }
    if is_administrative(&request) && !connection.peer.is_admin() {
        return Handled::Now(Err(RequestError::NotAdmin));
    }
    let (shared, connection) = (Arc::clone(shared), Arc::clone(connection));
    match request {
        Request::Ping => Handled::Now(Ok(Response::Pong.into())),
        Request::Acquire { model, kind, events: wanted } => {
            let events = wanted.then(|| news.events());
            Handled::Later(Box::pin(acquire(shared, connection, model, kind, events)))
        }
        Request::Release { lease } => Handled::Now(release(&shared, &connection, lease)),
        Request::Embed(request) => with_texts(request.texts, tail, |texts| {
            embed::embed(shared, connection, request, texts)
        }),
        Request::Rerank(request) => with_texts(request.texts, tail, |texts| {
            rerank::rerank(shared, connection, request, texts)
        }),
        Request::Generate(request) => with_texts(request.texts, tail, |texts| {
            let pieces = request.stream.then(|| news.pieces());
            text::generate(shared, connection, request, texts, pieces)
        }),
        Request::FillMask(request) => with_texts(request.texts, tail, |texts| {
            text::fill_mask(shared, connection, request, texts)
        }),
        Request::AvailableModels => Handled::Now(Ok(available_models(&shared))),
        Request::ModelConfig { model } => Handled::Now(model_config(&shared, &model)),
        Request::Status => Handled::Now(Ok(Response::Status(Box::new(status::of(&shared))).into())),
        Request::Preload { model, events: wanted } => {
            let events = wanted.then(|| news.events());
            Handled::Later(Box::pin(async move {
                let slot = find(&shared, &model)?;
                let preloaded = shared.registry.preload(&slot, events).await?;
                Ok(Response::Preloaded(preloaded).into())
            }))
        }
        Request::Unload { model } => Handled::Later(Box::pin(async move {
            find(&shared, &model)?;
            let freed = shared.registry.unload(&model).await;
            let freed = freed.map_err(|source| RequestError::Unload { model, source })?;
            Ok(Response::Freed(freed).into())
        })),
        Request::CleanupUnusedModels => Handled::Later(Box::pin(async move {
            Ok(Response::Freed(shared.registry.cleanup().await).into())
        })),
        Request::ClearEmbeddingCache => Handled::Later(Box::pin(async move {
            Ok(Response::CacheCleared(shared.clear_cache().await?).into())
        })),
        Request::Reload => Handled::Later(Box::pin(async move {
            Ok(Response::Reloaded(shared.reload().await?).into())
        })),
        Request::Why { model } => Handled::Now(
            find(&shared, &model)
                .map(|slot| Response::Decisions(shared.registry.why(&slot.id)).into()),
        ),
        Request::Plan { model } => Handled::Later(Box::pin(async move {
            let slot = find(&shared, &model)?;
            Ok(Response::Decisions(vec![shared.registry.plan(&slot).await?]).into())
        })),
    }
}

/// What brings texts to a model.
fn computes(request: &Request) -> bool {
    matches!(
        request,
        Request::Embed(_) | Request::Rerank(_) | Request::Generate(_) | Request::FillMask(_)
    )
}

/// Work on the texts behind a request, if they are texts.
fn with_texts<F>(count: u32, tail: Vec<u8>, work: impl FnOnce(TextBlock) -> F) -> Handled
where
    F: Future<Output = Result<Answer, RequestError>> + Send + 'static,
{
    match TextBlock::parse(count, tail) {
        Ok(texts) => Handled::Later(Box::pin(work(texts))),
        Err(error) => Handled::Now(Err(error.into())),
    }
}

/// What changes the daemon for everybody.
fn is_administrative(request: &Request) -> bool {
    matches!(
        request,
        Request::Unload { .. }
            | Request::CleanupUnusedModels
            | Request::ClearEmbeddingCache
            | Request::Reload
    )
}

/// The slot of a model id.
pub(crate) fn find(shared: &Shared, model: &ModelId) -> Result<Arc<ModelSlot>, RequestError> {
    shared.registry.get(model).ok_or_else(|| {
        let known = shared.registry.slots();
        let known: Vec<_> = known.iter().map(|slot| format!("\"{}\"", slot.id)).collect();
        RequestError::NotConfigured { model: model.clone(), known: known.join(", ") }
    })
}

/// The model that a request names, for as long as the request takes, and what is counted of it.
pub(crate) async fn target(
    shared: &Shared,
    connection: &Connection,
    target: Target,
    method: Method,
) -> Result<(Use, Arc<ModelSlot>), RequestError> {
    let using = match target {
        Target::Lease(lease) => shared.registry.use_lease(connection.id, lease).await?,
        Target::Model(id) => {
            check_method(&*find(shared, &id)?, method)?;
            shared.registry.use_model(&id).await?
        }
    };
    let slot = find(shared, &using.model.info.id)?;
    Ok((using, slot))
}

/// Whether a model may do what is asked of it, as far as its type tells: before a load of minutes.
fn check_method(slot: &ModelSlot, wanted: Method) -> Result<(), RequestError> {
    let settings = slot.settings();
    let Some(offered) = settings.model_type.methods() else { return Ok(()) };
    if offered.contains(&wanted) {
        return Ok(());
    }
    let offered: Vec<String> = offered.iter().map(Method::to_string).collect();
    Err(RequestError::NotOffered { model: slot.id.clone(), wanted, offered: offered.join(" or ") })
}

/// Whether a model is what the client takes it for.
fn check_kind(info: &ModelInfo, wanted: &ModelKind) -> Result<(), RequestError> {
    if info.kind == *wanted {
        return Ok(());
    }
    Err(RequestError::WrongKind {
        model: info.id.clone(),
        is: info.kind.clone(),
        wanted: wanted.clone(),
    })
}

/// The kind of a model that the program itself knows; another's is known when it is loaded.
fn configured_kind(slot: &ModelSlot) -> Option<ModelKind> {
    slot.settings().model_type.kind()
}

async fn acquire(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    model: ModelId,
    kind: Option<ModelKind>,
    events: Option<Events>,
) -> Result<Answer, RequestError> {
    let slot = find(&shared, &model)?;
    if let Some((wanted, is)) = kind.clone().zip(configured_kind(&slot))
        && wanted != is
    {
        // Before a load of minutes.
        return Err(RequestError::WrongKind { model, is, wanted });
    }
    let held = shared.registry.lease(connection.id, &model, events).await?;
    if let Some(wanted) = &kind {
        check_kind(&held.model.info, wanted)?;
    }
    let model = held.model.info.clone();
    Ok(Response::Leased(Leased { lease: held.keep(), model }).into())
}

fn release(
    shared: &Shared,
    connection: &Connection,
    lease: LeaseId,
) -> Result<Answer, RequestError> {
    shared.registry.release(connection.id, lease)?;
    Ok(Response::Released.into())
}

fn available_models(shared: &Shared) -> Answer {
    let summary = |slot: &Arc<ModelSlot>| {
        let seen = shared.registry.model_snapshot(&slot.id);
        let (source, model_type) = status::origin(slot, &seen);
        ModelSummary {
            id: slot.id.clone(),
            source,
            model_type,
            state: status::state(&seen),
            failure: seen.failed.map(|failed| crate::ground::error_chain::chain(&*failed.cause)),
        }
    };
    Response::AvailableModels(shared.registry.slots().iter().map(summary).collect()).into()
}

fn model_config(shared: &Shared, model: &ModelId) -> Result<Answer, RequestError> {
    find(shared, model)?;
    Ok(Response::ModelConfig(shared.settings().model_lines(model)).into())
}
