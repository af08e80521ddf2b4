//! Requests about models: leases, loads, unloads, and what is known of them.

use crate::ground::error_chain::chain;
use crate::models::registry::Events;
use crate::models::slot::ModelSlot;
use crate::request::answer::Answer;
use crate::request::caller::Caller;
use crate::request::failure::RequestError;
use crate::request::state::DaemonState;
use crate::request::status;
use crate::request::target::{configured_kind, find};
use emberd_protocol::{LeaseId, ModelId, ModelKind, ModelSummary, Response};
use std::sync::Arc;

/// Grants a lease, once the model is in memory.
pub(super) async fn acquire(
    state: Arc<DaemonState>,
    caller: Arc<Caller>,
    model: ModelId,
    kind: Option<ModelKind>,
    events: Option<Events>,
) -> Result<Answer, RequestError> {
    let slot = find(&state, &model)?;
    if let Some(is) = configured_kind(&slot) {
        // Before a load that may take minutes.
        check_kind(&model, &is, kind.as_ref())?;
    }
    let lease = state.registry().lease(caller.id, &model, events).await?;
    check_kind(&model, &lease.model.info.kind, kind.as_ref())?;
    Ok(Answer::leased(lease))
}

/// Ends a lease.
pub(super) fn release(
    state: &DaemonState,
    caller: &Caller,
    lease: LeaseId,
) -> Result<Answer, RequestError> {
    state.registry().release(caller.id, lease)?;
    Ok(Response::Released.into())
}

/// Brings a model into memory.
pub(super) async fn preload(
    state: Arc<DaemonState>,
    model: ModelId,
    events: Option<Events>,
) -> Result<Answer, RequestError> {
    let slot = find(&state, &model)?;
    let preloaded = state.registry().preload(&slot, events).await?;
    Ok(Response::Preloaded(preloaded).into())
}

/// Removes a model from memory.
pub(super) async fn unload(
    state: Arc<DaemonState>,
    model: ModelId,
) -> Result<Answer, RequestError> {
    find(&state, &model)?;
    let freed = state.registry().unload(&model).await;
    let freed = freed.map_err(|source| RequestError::Unload { model, source })?;
    Ok(Response::Freed(freed).into())
}

/// Removes all models from memory that nobody holds or uses.
pub(super) async fn cleanup(state: Arc<DaemonState>) -> Result<Answer, RequestError> {
    Ok(Response::Freed(state.registry().cleanup().await).into())
}

/// The decisions about a model.
pub(super) fn why(state: &DaemonState, model: &ModelId) -> Result<Answer, RequestError> {
    let slot = find(state, model)?;
    Ok(Response::Decisions(state.registry().why(&slot.id)).into())
}

/// What a load of a model would do now.
pub(super) async fn plan(state: Arc<DaemonState>, model: ModelId) -> Result<Answer, RequestError> {
    let slot = find(&state, &model)?;
    Ok(Response::Decisions(vec![state.registry().plan(&slot).await?]).into())
}

/// All configured models, with their states.
pub(super) fn available_models(state: &DaemonState) -> Answer {
    let summary = |slot: &Arc<ModelSlot>| {
        let snapshot = state.registry().model_snapshot(&slot.id);
        let (source, model_type) = status::origin(slot, &snapshot);
        ModelSummary {
            id: slot.id.clone(),
            source,
            model_type,
            state: status::model_state(&snapshot),
            failure: snapshot.failed.map(|failed| chain(&*failed.cause)),
        }
    };
    Response::AvailableModels(state.registry().slots().iter().map(summary).collect()).into()
}

/// The settings of a model.
pub(super) fn model_config(state: &DaemonState, model: &ModelId) -> Result<Answer, RequestError> {
    find(state, model)?;
    Ok(Response::ModelConfig(state.settings().model_lines(model)).into())
}

/// Refuses a model that is not what the client takes it for.
fn check_kind(
    model: &ModelId,
    is: &ModelKind,
    wanted: Option<&ModelKind>,
) -> Result<(), RequestError> {
    match wanted {
        Some(wanted) if wanted != is => Err(RequestError::WrongKind {
            model: model.clone(),
            is: is.clone(),
            wanted: wanted.clone(),
        }),
        Some(_) | None => Ok(()),
    }
}
