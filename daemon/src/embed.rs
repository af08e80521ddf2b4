//! From texts to rows: the one request that computes.

use crate::daemon::Shared;
use crate::dispatch::{Answer, check_kind, find};
use crate::error::RequestError;
use crate::job::Job;
use crate::lookup::{Found, Lookup};
use crate::model::LoadedModel;
use crate::segment::{Finished, InlineShare, Output};
use crate::session::Connection;
use emberd_protocol::{
    Delivery, ElementType, EmbedRequest, Embedded, MAX_BODY_BYTES, MAX_FRAME_BYTES, ModelKind,
    Place, Response, Target, TextBlock, rows_len_bytes,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The largest result that comes inline: a frame with room for its message.
const MAX_INLINE_BYTES: u64 = (MAX_FRAME_BYTES - MAX_BODY_BYTES) as u64;

/// Finds the model, reserves the rows' home, queues the texts, and waits for their rows.
pub(crate) async fn embed(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    request: EmbedRequest,
    texts: TextBlock,
) -> Result<Answer, RequestError> {
    // It stays in memory until this request has been answered.
    let using = match request.target {
        Target::Lease(lease) => shared.registry.use_lease(connection.id, lease).await?,
        Target::Model(id) => {
            find(&shared, &id)?;
            shared.registry.use_model(&id).await?
        }
    };
    let model = &using.model;
    let slot = find(&shared, &model.info.id)?;
    let counters = &slot.counters;
    check_kind(&model.info, &ModelKind::Embedding)?;

    let (rows, dimension) = (request.texts, model.info.dimension);
    let (mut output, inline) =
        reserve(&shared, &connection, request.delivery, rows, dimension).await?;
    let mut answer = Embedded {
        rows,
        dimension,
        element: ElementType::F32,
        place: Place::Inline,
        tokens: 0,
        truncated: Vec::new(),
        ranges: None,
    };
    if rows > 0 {
        let places = output.take_rows();
        let lookup = lookup(&shared, &connection, model);
        let (job, waiting) = match lookup {
            None => Job::new(connection.id, texts, places, model.shape),
            Some(lookup) => {
                let found = lookup.find(texts, places).await;
                let Found { texts, missing, truncated } =
                    found.ok_or(RequestError::Defect("a look-up panicked"))?;
                Job::of_homes(connection.id, texts, missing, truncated)
            }
        };
        if job.len() > 0 {
            model.queue.push(job)?;
        }
        let done = waiting.done().await?;
        let cached = u64::from(rows).saturating_sub(done.computed);
        counters.texts_cached.fetch_add(cached, Ordering::Relaxed);
        answer.tokens = done.tokens;
        answer.truncated = done.truncated;
    }

    let finished =
        output.finish().map_err(|_| RequestError::Defect("a row outlived its computation"))?;
    counters.requests.fetch_add(1, Ordering::Relaxed);
    let tail = match finished {
        Finished::Inline(bytes) => {
            counters.rows_inline.fetch_add(u64::from(rows), Ordering::Relaxed);
            bytes
        }
        Finished::Slot(slot) => {
            counters.rows_shared.fetch_add(u64::from(rows), Ordering::Relaxed);
            answer.place = Place::Slot(slot);
            Vec::new()
        }
        Finished::Lost(error) => return Err(error.into()),
    };
    Ok(Answer { response: Response::Embedded(answer), tail, inline: inline.map(Box::new) })
}

/// Where rows of this model may be found that were computed for this user, or for any.
fn lookup(shared: &Shared, connection: &Connection, model: &LoadedModel) -> Option<Lookup> {
    let fingerprint = model.fingerprint?;
    let settings = shared.settings();
    if !settings.cache.enabled {
        return None;
    }
    let user = (!settings.cache.is_shared_between_users).then_some(connection.peer.uid);
    Some(Lookup::new(&shared.cache, &fingerprint, user, model.shape))
}

/// A home for the rows, before anything is computed: a result never waits for memory.
async fn reserve(
    shared: &Shared,
    connection: &Connection,
    delivery: Delivery,
    rows: u32,
    dimension: u32,
) -> Result<(Output, Option<InlineShare>), RequestError> {
    let too_large = |len_bytes| RequestError::InlineTooLarge { len_bytes, limit: MAX_INLINE_BYTES };
    let len_bytes = rows_len_bytes(rows, dimension, ElementType::F32).ok_or(too_large(u64::MAX))?;
    let (rows, dimension) = (rows as usize, dimension as usize);
    let settings = shared.settings();
    let settings = &settings.segments;
    let shares = delivery == Delivery::Auto && len_bytes > u64::from(settings.inline_bytes);
    if let Some(pool) = connection.pool.as_ref().filter(|_| shares) {
        let slot = pool.reserve(len_bytes, settings.wait).await?;
        return Ok((Output::slot(slot, rows, dimension)?, None));
    }
    if len_bytes > MAX_INLINE_BYTES {
        return Err(too_large(len_bytes));
    }
    let share = connection.inline.reserve(len_bytes, settings.wait).await?;
    Ok((Output::heap(rows, dimension), Some(share)))
}
