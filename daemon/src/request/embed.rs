//! From texts to rows.

pub(super) mod destination;
mod elements;
mod lookup;
pub(super) mod plan;

use crate::batching::row_job::RowJob;
use crate::cache::KeySpace;
use crate::models::loaded::LoadedModel;
use crate::models::parts::Embedding;
use crate::request::answer::Answer;
use crate::request::caller::Caller;
use crate::request::embed::destination::Destination;
use crate::request::embed::lookup::{CacheLookup, LookedUp};
use crate::request::embed::plan::EmbedPlan;
use crate::request::failure::RequestError;
use crate::request::state::DaemonState;
use crate::request::target::resolve;
use emberd_protocol::{EmbedRequest, Embedded, Method, Place, Response, TextBlock};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Reserves the memory that the client will read, queues the texts whose rows the cache does not
/// have, and waits until all rows are written.
pub(super) async fn embed(
    state: Arc<DaemonState>,
    caller: Arc<Caller>,
    request: EmbedRequest,
    texts: TextBlock,
) -> Result<Answer, RequestError> {
    // The model stays in memory until this ends.
    let (using, slot) = resolve(&state, &caller, request.target, Method::Embed).await?;
    let (model, counters) = (&using.model, &slot.counters);
    let embedding = model.embedding()?;

    let rows = request.texts;
    let plan = EmbedPlan::new(request.options, &model.info, embedding)?;
    let mut destination =
        Destination::reserve(&state, &caller, request.delivery, rows, &plan).await?;
    let mut embedded = Embedded {
        rows,
        dimension: u32::try_from(plan.shape.used).unwrap_or(u32::MAX),
        element: plan.element,
        place: Place::Inline,
        tokens: 0,
        truncated: Vec::new(),
        ranges: None,
    };
    if rows > 0 {
        let targets = destination.rows.take_rows();
        let prompt = plan.prompt.clone();
        let (job, waiting) = match lookup(&state, &caller, model, embedding, &plan) {
            None => RowJob::new(caller.id, prompt, texts, targets, plan.shape),
            Some(lookup) => {
                let looked_up = lookup.find(texts, targets).await;
                let LookedUp { texts, missing, truncated } =
                    looked_up.ok_or(RequestError::Defect("a look-up panicked"))?;
                RowJob::of_targets(caller.id, prompt, texts, missing, truncated)
            }
        };
        if job.len() > 0 {
            embedding.queue.push(job)?;
        }
        let done = waiting.done().await?;
        let cached = u64::from(rows).saturating_sub(done.computed);
        counters.texts_cached.fetch_add(cached, Ordering::Relaxed);
        embedded.tokens = done.tokens;
        embedded.truncated = done.truncated;
    }

    let delivery = destination.finish(plan).await?;
    counters.requests.fetch_add(1, Ordering::Relaxed);
    let delivered = match delivery.promise.slot() {
        Some(slot) => {
            embedded.place = Place::Slot(slot);
            &counters.rows_shared
        }
        None => &counters.rows_inline,
    };
    delivered.fetch_add(u64::from(rows), Ordering::Relaxed);
    embedded.ranges = delivery.ranges;
    let response = Response::Embedded(embedded);
    Ok(Answer { response, tail: delivery.tail, promise: delivery.promise })
}

/// Where to look for rows of this model that were computed before, for this user or for any.
fn lookup(
    state: &DaemonState,
    caller: &Caller,
    model: &LoadedModel,
    embedding: &Embedding,
    plan: &EmbedPlan,
) -> Option<CacheLookup> {
    let fingerprint = embedding.fingerprint?;
    let settings = state.settings();
    if !settings.cache.enabled {
        return None;
    }
    let user = (!settings.cache.is_shared_between_users).then_some(caller.peer.uid);
    let prompt = plan.prompt_text(&model.info, embedding);
    let keys = KeySpace::new(&fingerprint, plan.shape.model, user, prompt);
    Some(CacheLookup::new(state.flights(), keys, plan.shape))
}
