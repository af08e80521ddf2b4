//! From texts to rows.

pub(crate) mod elements;
pub(crate) mod home;
pub(crate) mod lookup;
pub(crate) mod wanted;

pub(crate) use crate::request::embed::wanted::RowError;

use crate::batching::row_job::RowJob;
use crate::cache::KeySpace;
use crate::connection::session::Connection;
use crate::daemon::Shared;
use crate::models::loaded::LoadedModel;
use crate::models::parts::Embedding;
use crate::request::dispatch::{Answer, target};
use crate::request::embed::home::{Encoded, Homes};
use crate::request::embed::lookup::{Found, Lookup};
use crate::request::embed::wanted::Wanted;
use crate::request::failure::RequestError;
use crate::segment::Finished;
use emberd_protocol::{EmbedRequest, Embedded, Method, Place, Response, TextBlock};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(crate) use crate::request::embed::home::MAX_INLINE_BYTES;

/// Finds the model, reserves the rows' home, queues the texts, and waits for their rows.
pub(crate) async fn embed(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    request: EmbedRequest,
    texts: TextBlock,
) -> Result<Answer, RequestError> {
    // It stays in memory until this request has been answered.
    let (using, slot) = target(&shared, &connection, request.target, Method::Embed).await?;
    let (model, counters) = (&using.model, &slot.counters);
    let embedding = model.embedding()?;

    let rows = request.texts;
    let wanted = Wanted::of(request.options, &model.info, embedding)?;
    let mut homes = Homes::reserve(&shared, &connection, request.delivery, rows, &wanted).await?;
    let mut answer = Embedded {
        rows,
        dimension: u32::try_from(wanted.shape.used).unwrap_or(u32::MAX),
        element: wanted.element,
        place: Place::Inline,
        tokens: 0,
        truncated: Vec::new(),
        ranges: None,
    };
    if rows > 0 {
        let places = homes.rows.take_rows();
        let lookup = lookup(&shared, &connection, model, embedding, &wanted);
        let prompt = wanted.prompt.clone();
        let (job, waiting) = match lookup {
            None => RowJob::new(connection.id, prompt, texts, places, wanted.shape),
            Some(lookup) => {
                let found = lookup.find(texts, places).await;
                let Found { texts, missing, truncated } =
                    found.ok_or(RequestError::Defect("a look-up panicked"))?;
                RowJob::of_targets(connection.id, prompt, texts, missing, truncated)
            }
        };
        if job.len() > 0 {
            embedding.queue.push(job)?;
        }
        let done = waiting.done().await?;
        let cached = u64::from(rows).saturating_sub(done.computed);
        counters.texts_cached.fetch_add(cached, Ordering::Relaxed);
        answer.tokens = done.tokens;
        answer.truncated = done.truncated;
    }

    let Encoded { finished, ranges, inline } = homes.finish(wanted).await?;
    answer.ranges = ranges;
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
fn lookup(
    shared: &Shared,
    connection: &Connection,
    model: &LoadedModel,
    embedding: &Embedding,
    wanted: &Wanted,
) -> Option<Lookup> {
    let fingerprint = embedding.fingerprint?;
    let settings = shared.settings();
    if !settings.cache.enabled {
        return None;
    }
    let user = (!settings.cache.is_shared_between_users).then_some(connection.peer.uid);
    let keys = KeySpace::new(
        &fingerprint,
        wanted.shape.model,
        user,
        wanted.prompt_text(&model.info, embedding),
    );
    Some(Lookup::new(&shared.flights, keys, wanted.shape))
}
