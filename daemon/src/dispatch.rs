//! From a request to its handler.

use crate::daemon::Shared;
use crate::embed;
use crate::error::RequestError;
use crate::latency::Kind;
use crate::model::ModelSlot;
use crate::registry::Events;
use crate::segment::InlineShare;
use crate::session::Connection;
use crate::settings::{EMBEDDING_TYPE, TEXT2TEXT_TYPE};
use crate::status;
use emberd_protocol::{
    Frame, LeaseId, Leased, ModelId, ModelInfo, ModelKind, ModelSummary, Request, Response,
    TextBlock,
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
pub(crate) enum Handled {
    /// At once: nothing is waited for.
    Now(Result<Answer, RequestError>),
    /// By a task.
    Later(Work),
}

/// Decodes a request and finds its handler, and tells of which kind it is. `events` makes the way
/// to the client for news of it.
pub(crate) fn handle(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    frame: Frame,
    events: impl FnOnce() -> Events,
) -> (Kind, Handled) {
    match decode(frame) {
        Ok((request, tail)) => {
            (Kind::of(&request), route(shared, connection, request, tail, events))
        }
        Err(error) => (Kind::Other, Handled::Now(Err(error))),
    }
}

fn decode(frame: Frame) -> Result<(Request, Vec<u8>), RequestError> {
    let request: Request = frame.decode()?;
    let takes_tail = matches!(request, Request::Embed(_));
    if !takes_tail && !frame.tail.is_empty() {
        return Err(RequestError::UnexpectedTail { len_bytes: frame.tail.len() });
    }
    Ok((request, frame.tail))
}

fn route(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    request: Request,
    tail: Vec<u8>,
    events: impl FnOnce() -> Events,
) -> Handled {
    let brings_work =
        matches!(request, Request::Acquire { .. } | Request::Embed(_) | Request::Preload { .. });
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
            let events = wanted.then(events);
            Handled::Later(Box::pin(acquire(shared, connection, model, kind, events)))
        }
        Request::Release { lease } => Handled::Now(release(&shared, &connection, lease)),
        Request::Embed(request) => match TextBlock::parse(request.texts, tail) {
            Ok(texts) => Handled::Later(Box::pin(embed::embed(shared, connection, request, texts))),
            Err(error) => Handled::Now(Err(error.into())),
        },
        Request::AvailableModels => Handled::Now(Ok(available_models(&shared))),
        Request::ModelConfig { model } => Handled::Now(model_config(&shared, &model)),
        Request::Status => Handled::Now(Ok(Response::Status(Box::new(status::of(&shared))).into())),
        Request::Preload { model, events: wanted } => {
            let events = wanted.then(events);
            Handled::Later(Box::pin(async move {
                let slot = find(&shared, &model)?;
                let preloaded = shared.registry.preload(&slot, events).await?;
                Ok(Response::Preloaded(preloaded).into())
            }))
        }
        Request::Unload { model } => Handled::Later(Box::pin(async move {
            find(&shared, &model)?;
            Ok(Response::Freed(shared.registry.unload(&model).await?).into())
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
        Request::Rerank(_) | Request::Generate(_) | Request::FillMask(_) => {
            Handled::Now(Err(RequestError::Defect("not routed yet")))
        }
        Request::Plan { model } => Handled::Later(Box::pin(async move {
            let slot = find(&shared, &model)?;
            Ok(Response::Decisions(vec![shared.registry.plan(&slot).await?]).into())
        })),
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

/// Whether a model is what the client takes it for.
pub(crate) fn check_kind(info: &ModelInfo, wanted: &ModelKind) -> Result<(), RequestError> {
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
    match slot.settings().model_type.as_str() {
        EMBEDDING_TYPE => Some(ModelKind::Embedding),
        TEXT2TEXT_TYPE => Some(ModelKind::Text2Text),
        _ => None,
    }
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
        let seen = shared.registry.seen(&slot.id);
        let settings = slot.settings();
        ModelSummary {
            id: slot.id.clone(),
            source: settings.source(),
            model_type: settings.model_type,
            state: status::state(&seen),
            failure: seen.failed.map(|failed| crate::error::chain(&*failed.cause)),
        }
    };
    Response::AvailableModels(shared.registry.slots().iter().map(summary).collect()).into()
}

fn model_config(shared: &Shared, model: &ModelId) -> Result<Answer, RequestError> {
    find(shared, model)?;
    Ok(Response::ModelConfig(shared.settings().model_lines(model)).into())
}
