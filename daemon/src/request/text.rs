//! From texts to texts, and to what may stand at their masks.

use crate::batching::generation::{GenerationConfig, TextJob};
use crate::connection::session::Connection;
use crate::daemon::Shared;
use crate::request::dispatch::{Answer, target};
use crate::request::events::Pieces;
use crate::request::failure::RequestError;
use emberd_protocol::{FillMaskRequest, GenerateRequest, Method, Response, TextBlock};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Finds the model, works out how its texts are made, queues them, and waits for what becomes of
/// them. Pieces, where they are wanted, are written before this ends.
pub(crate) async fn generate(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    request: GenerateRequest,
    texts: TextBlock,
    pieces: Option<Pieces>,
) -> Result<Answer, RequestError> {
    let GenerateRequest { target: wanted, options, stream, .. } = request;
    let (using, slot) = target(&shared, &connection, wanted, Method::Generate).await?;
    let generation = using.model.generation()?;
    let defaults = generation.model.defaults();
    let config = GenerationConfig::resolve(&options, stream, defaults, generation.limits)?;
    let sink = pieces.as_ref().map(Pieces::sink);
    let job = TextJob { connection: connection.id, texts, config, sink };
    let generated = generation.queue.push(job)?.done().await?;
    if let Some(pieces) = pieces {
        pieces.written().await;
    }
    slot.counters.requests.fetch_add(1, Ordering::Relaxed);
    Ok(Response::Generated(generated).into())
}

/// Finds the model, queues the texts, and waits for what may stand at their masks.
pub(crate) async fn fill_mask(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    request: FillMaskRequest,
    texts: TextBlock,
) -> Result<Answer, RequestError> {
    let (using, slot) = target(&shared, &connection, request.target, Method::FillMask).await?;
    let queue = &using.model.masks()?.queue;
    let filled = queue.push(connection.id, texts, request.top_k)?.done().await?;
    slot.counters.requests.fetch_add(1, Ordering::Relaxed);
    Ok(Response::MasksFilled(filled).into())
}
