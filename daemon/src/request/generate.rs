//! From texts to new texts.

use crate::batching::generation::{GenerationConfig, TextJob};
use crate::request::answer::Answer;
use crate::request::caller::Caller;
use crate::request::events::PieceWriter;
use crate::request::failure::RequestError;
use crate::request::state::DaemonState;
use crate::request::target::resolve;
use emberd_protocol::{GenerateRequest, Method, Response, TextBlock};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Resolves the request's options against the model's defaults, queues the texts, and waits for
/// what the model makes of them. Pieces, if the client wants them, are written before this ends.
pub(super) async fn generate(
    state: Arc<DaemonState>,
    caller: Arc<Caller>,
    request: GenerateRequest,
    texts: TextBlock,
    pieces: Option<PieceWriter>,
) -> Result<Answer, RequestError> {
    let GenerateRequest { target, options, stream, .. } = request;
    let (using, slot) = resolve(&state, &caller, target, Method::Generate).await?;
    let generation = using.model.generation()?;
    let defaults = generation.model.defaults();
    let config = GenerationConfig::resolve(&options, stream, defaults, generation.limits)?;
    let sink = pieces.as_ref().map(PieceWriter::sink);
    let job = TextJob { connection: caller.id, texts, config, sink };
    let generated = generation.queue.push(job)?.done().await?;
    if let Some(pieces) = pieces {
        pieces.flush().await;
    }
    slot.counters.requests.fetch_add(1, Ordering::Relaxed);
    Ok(Response::Generated(generated).into())
}
