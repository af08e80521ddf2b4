//! Requests that change the daemon for everybody. (Unloads are with the other requests about
//! models.)

use crate::cache::Cleared;
use crate::ground::memory;
use crate::request::answer::Answer;
use crate::request::failure::RequestError;
use crate::request::state::DaemonState;
use emberd_protocol::{CacheCleared, Response};
use std::sync::Arc;

/// Reads the settings again.
pub(super) async fn reload(state: Arc<DaemonState>) -> Result<Answer, RequestError> {
    Ok(Response::Reloaded(state.reload().await?).into())
}

/// Removes all rows from the embedding cache and from its file.
pub(super) async fn clear_cache(state: Arc<DaemonState>) -> Result<Answer, RequestError> {
    let cleared = tokio::task::spawn_blocking(move || {
        let cleared = state.cache().clear();
        memory::trim();
        cleared
    });
    let cleared = cleared.await.map_err(|_| RequestError::Defect("clearing panicked"))?;
    let Cleared { entries, bytes } = cleared?;
    let cleared = CacheCleared { entries: entries as u64, bytes: bytes as u64 };
    Ok(Response::CacheCleared(cleared).into())
}
