//! From a request to its handler.

use crate::request::answer::{Answer, PendingAnswer};
use crate::request::caller::Caller;
use crate::request::events::EventWriter;
use crate::request::failure::RequestError;
use crate::request::latency::RequestKind;
use crate::request::state::DaemonState;
use crate::request::{admin, embed, fill_mask, generate, models, rerank, status};
use emberd_protocol::{Frame, Request, Response, TextBlock};
use std::sync::Arc;

/// How a request is answered.
#[expect(clippy::large_enum_variant, reason = "it is moved once, to where it is answered")]
pub(crate) enum Handled {
    /// At once: nothing is waited for.
    Now(Answer),
    /// By a task.
    Later(PendingAnswer),
}

/// Decodes a request and hands it to its handler. `events` is the way to the client before the
/// answer.
pub(crate) fn handle(
    state: &Arc<DaemonState>,
    caller: &Arc<Caller>,
    frame: Frame,
    events: EventWriter<'_>,
) -> (RequestKind, Handled) {
    let id = frame.id;
    let (kind, handled) = match decode(frame) {
        Ok((request, tail)) => {
            (RequestKind::of(&request), route(state, caller, request, tail, events))
        }
        Err(error) => (RequestKind::Other, Err(error)),
    };
    let failed = |error| Handled::Now(Answer::failed(caller.id, id, &error));
    (kind, handled.unwrap_or_else(failed))
}

fn decode(frame: Frame) -> Result<(Request, Vec<u8>), RequestError> {
    let request: Request = frame.decode()?;
    if !brings_texts(&request) && !frame.tail.is_empty() {
        return Err(RequestError::UnexpectedTail { len_bytes: frame.tail.len() });
    }
    Ok((request, frame.tail))
}

fn route(
    state: &Arc<DaemonState>,
    caller: &Arc<Caller>,
    request: Request,
    tail: Vec<u8>,
    events: EventWriter<'_>,
) -> Result<Handled, RequestError> {
    if brings_work(&request) && state.is_draining() {
        return Err(RequestError::ShuttingDown);
    }
    if is_administrative(&request) && !caller.peer.is_admin() {
        return Err(RequestError::NotAdmin);
    }
    let later = Later { caller: Arc::clone(caller), request: events.request.id };
    let (state, caller) = (Arc::clone(state), Arc::clone(caller));
    Ok(match request {
        Request::Ping => Handled::Now(Response::Pong.into()),
        Request::Acquire { model, kind, events: wanted } => {
            let events = wanted.then(|| events.load_events());
            later.by(models::acquire(state, caller, model, kind, events))
        }
        Request::Release { lease } => Handled::Now(models::release(&state, &caller, lease)?),
        Request::Embed(request) => {
            let texts = TextBlock::parse(request.texts, tail)?;
            later.by(embed::embed(state, caller, request, texts))
        }
        Request::Rerank(request) => {
            let texts = TextBlock::parse(request.texts, tail)?;
            later.by(rerank::rerank(state, caller, request, texts))
        }
        Request::Generate(request) => {
            let texts = TextBlock::parse(request.texts, tail)?;
            let pieces = request.stream.then(|| events.pieces());
            later.by(generate::generate(state, caller, request, texts, pieces))
        }
        Request::FillMask(request) => {
            let texts = TextBlock::parse(request.texts, tail)?;
            later.by(fill_mask::fill_mask(state, caller, request, texts))
        }
        Request::AvailableModels => Handled::Now(models::available_models(&state)),
        Request::ModelConfig { model } => Handled::Now(models::model_config(&state, &model)?),
        Request::Status => Handled::Now(Response::Status(Box::new(status::status(&state))).into()),
        Request::Preload { model, events: wanted } => {
            let events = wanted.then(|| events.load_events());
            later.by(models::preload(state, model, events))
        }
        Request::Unload { model } => later.by(models::unload(state, model)),
        Request::CleanupUnusedModels => later.by(models::cleanup(state)),
        Request::ClearEmbeddingCache => later.by(admin::clear_cache(state)),
        Request::Reload => later.by(admin::reload(state)),
        Request::Why { model } => Handled::Now(models::why(&state, &model)?),
        Request::Plan { model } => later.by(models::plan(state, model)),
    })
}

/// Makes tasks of handlers that wait for something.
struct Later {
    caller: Arc<Caller>,
    request: u64,
}

impl Later {
    fn by<F>(self, work: F) -> Handled
    where
        F: Future<Output = Result<Answer, RequestError>> + Send + 'static,
    {
        Handled::Later(PendingAnswer::new(self.caller.id, self.request, work))
    }
}

/// Whether texts for a model follow the request.
fn brings_texts(request: &Request) -> bool {
    matches!(
        request,
        Request::Embed(_) | Request::Rerank(_) | Request::Generate(_) | Request::FillMask(_)
    )
}

/// Whether a daemon that stops refuses it.
fn brings_work(request: &Request) -> bool {
    brings_texts(request) || matches!(request, Request::Acquire { .. } | Request::Preload { .. })
}

/// Whether it changes the daemon for everybody.
fn is_administrative(request: &Request) -> bool {
    matches!(
        request,
        Request::Unload { .. }
            | Request::CleanupUnusedModels
            | Request::ClearEmbeddingCache
            | Request::Reload
    )
}
