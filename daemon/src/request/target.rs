//! The model that a request names, and what its configured type says before it is loaded.

use crate::models::registry::Use;
use crate::models::slot::ModelSlot;
use crate::request::caller::Caller;
use crate::request::failure::RequestError;
use crate::request::state::DaemonState;
use emberd_protocol::{Method, ModelId, ModelKind, Target};
use std::sync::Arc;

/// Brings the model that a request names into memory, where it stays as long as the returned
/// [`Use`]. The slot counts what the request does.
///
/// # Errors
/// When the model does not offer the method, cannot be loaded, or the lease is not the caller's.
pub(super) async fn resolve(
    state: &DaemonState,
    caller: &Caller,
    target: Target,
    method: Method,
) -> Result<(Use, Arc<ModelSlot>), RequestError> {
    let using = match target {
        Target::Lease(lease) => state.registry().use_lease(caller.id, lease).await?,
        Target::Model(id) => {
            check_method(&*find(state, &id)?, method)?;
            state.registry().use_model(&id).await?
        }
    };
    let slot = find(state, &using.model.info.id)?;
    Ok((using, slot))
}

/// The configured model with this id.
///
/// # Errors
/// When there is none.
pub(super) fn find(state: &DaemonState, model: &ModelId) -> Result<Arc<ModelSlot>, RequestError> {
    state.registry().get(model).ok_or_else(|| {
        let known = state.registry().slots();
        let known: Vec<_> = known.iter().map(|slot| format!("\"{}\"", slot.id)).collect();
        RequestError::NotConfigured { model: model.clone(), known: known.join(", ") }
    })
}

/// The kind of a model whose type the program itself defines. Of a custom type it is known once the
/// model is loaded.
pub(super) fn configured_kind(slot: &ModelSlot) -> Option<ModelKind> {
    slot.settings().model_type.kind()
}

/// Refuses a method that the model's type rules out, before a load that may take minutes.
fn check_method(slot: &ModelSlot, wanted: Method) -> Result<(), RequestError> {
    let Some(offered) = slot.settings().model_type.methods() else { return Ok(()) };
    if offered.contains(&wanted) {
        return Ok(());
    }
    let offered: Vec<String> = offered.iter().map(Method::to_string).collect();
    Err(RequestError::NotOffered { model: slot.id.clone(), wanted, offered: offered.join(" or ") })
}
