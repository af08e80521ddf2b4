//! From texts with masks to candidates for each mask.

use crate::request::answer::Answer;
use crate::request::caller::Caller;
use crate::request::failure::RequestError;
use crate::request::state::DaemonState;
use crate::request::target::resolve;
use emberd_protocol::{FillMaskRequest, Method, Response, TextBlock};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Queues the texts, and waits for the candidates.
pub(super) async fn fill_mask(
    state: Arc<DaemonState>,
    caller: Arc<Caller>,
    request: FillMaskRequest,
    texts: TextBlock,
) -> Result<Answer, RequestError> {
    let (using, slot) = resolve(&state, &caller, request.target, Method::FillMask).await?;
    let queue = &using.model.masks()?.queue;
    let filled = queue.push(caller.id, texts, request.top_k)?.done().await?;
    slot.counters.requests.fetch_add(1, Ordering::Relaxed);
    Ok(Response::MasksFilled(filled).into())
}
