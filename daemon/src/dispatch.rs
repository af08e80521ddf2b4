//! From a request to its handler.

use crate::daemon::Shared;
use crate::embed;
use crate::error::RequestError;
use crate::registry::{ModelSlot, Seen};
use crate::session::Connection;
use crate::status;
use crate::sync::lock;
use emberd_protocol::{
    Frame, LeaseId, Leased, ModelId, ModelInfo, ModelKind, ModelSummary, Request, Response,
    TextBlock,
};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

/// What goes back to the client.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// Inline rows.
    pub(crate) tail: Vec<u8>,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self { response, tail: Vec::new() }
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

/// Decodes a request and finds its handler.
pub(crate) fn handle(shared: &Arc<Shared>, connection: &Arc<Connection>, frame: Frame) -> Handled {
    match decode(frame) {
        Ok((request, tail)) => route(shared, connection, request, tail),
        Err(error) => Handled::Now(Err(error)),
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
) -> Handled {
    if matches!(request, Request::Acquire { .. } | Request::Embed(_)) && *shared.draining.borrow() {
        return Handled::Now(Err(RequestError::ShuttingDown));
    }
    let (shared, connection) = (Arc::clone(shared), Arc::clone(connection));
    match request {
        Request::Ping => Handled::Now(Ok(Response::Pong.into())),
        Request::Acquire { model, kind } => {
            Handled::Later(Box::pin(acquire(shared, connection, model, kind)))
        }
        Request::Release { lease } => Handled::Now(release(&shared, &connection, lease)),
        Request::Embed(request) => match TextBlock::parse(request.texts, tail) {
            Ok(texts) => Handled::Later(Box::pin(embed::embed(shared, connection, request, texts))),
            Err(error) => Handled::Now(Err(error.into())),
        },
        Request::AvailableModels => Handled::Now(Ok(available_models(&shared))),
        Request::ModelConfig { model } => Handled::Now(model_config(&shared, &model)),
        Request::Status => Handled::Now(Ok(Response::Status(Box::new(status::of(&shared))).into())),
    }
}

/// The slot of a model id.
pub(crate) fn find<'a>(
    shared: &'a Shared,
    model: &ModelId,
) -> Result<&'a Arc<ModelSlot>, RequestError> {
    shared.registry.get(model).ok_or_else(|| {
        let known: Vec<_> = shared.registry.iter().map(|slot| format!("\"{}\"", slot.id)).collect();
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

async fn acquire(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    model: ModelId,
    kind: Option<ModelKind>,
) -> Result<Answer, RequestError> {
    let slot = Arc::clone(find(&shared, &model)?);
    let loaded = shared
        .registry
        .loaded(&slot)
        .await
        .map_err(|source| RequestError::Load { model: model.clone(), source })?;
    if let Some(wanted) = &kind {
        check_kind(&loaded.info, wanted)?;
    }
    let limit = shared.settings.limits.leases as usize;
    let lease = lock(&shared.leases).grant(connection.id, &model, limit, Instant::now())?;
    Ok(Response::Leased(Leased { lease, model: loaded.info.clone() }).into())
}

fn release(
    shared: &Shared,
    connection: &Connection,
    lease: LeaseId,
) -> Result<Answer, RequestError> {
    lock(&shared.leases).release(connection.id, lease, Instant::now())?;
    Ok(Response::Released.into())
}

fn available_models(shared: &Shared) -> Answer {
    let summary = |slot: &Arc<ModelSlot>| {
        let leases = lock(&shared.leases).usage(&slot.id).leases;
        let seen = slot.seen();
        ModelSummary {
            id: slot.id.clone(),
            model_type: slot.settings.model_type.clone(),
            source: slot.settings.source.to_string(),
            state: status::state(&seen, leases),
            failure: match &seen {
                Seen::Failed(failure) => Some(crate::error::chain(failure.as_ref())),
                Seen::Configured | Seen::Loading | Seen::Loaded(_) => None,
            },
        }
    };
    Response::AvailableModels(shared.registry.iter().map(summary).collect()).into()
}

fn model_config(shared: &Shared, model: &ModelId) -> Result<Answer, RequestError> {
    find(shared, model)?;
    Ok(Response::ModelConfig(shared.settings.model_lines(model)).into())
}
