//! From pairs of texts to scores. Queue and workers are those of rows, over the model's head.

use crate::batching::row_job::RowJob;
use crate::request::answer::{Answer, Promise};
use crate::request::caller::Caller;
use crate::request::embed::destination::MAX_INLINE_BYTES;
use crate::request::failure::RequestError;
use crate::request::state::DaemonState;
use crate::request::target::resolve;
use crate::segment::{Finished, Output};
use emberd_protocol::{
    ElementType, Method, Pairing, RerankRequest, Reranked, Response, ScoreActivation, TextBlock,
    rows_len_bytes,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// More scores than this are activated on a thread that may block: the runtime's threads serve
/// others too.
const MAX_INLINE_SCORES: usize = 16 << 10;

/// Queues the pairs, and waits for their scores. These always go inline, since a pair has few, and
/// are not cached.
pub(super) async fn rerank(
    state: Arc<DaemonState>,
    caller: Arc<Caller>,
    request: RerankRequest,
    texts: TextBlock,
) -> Result<Answer, RequestError> {
    let pairs = pairs(request.texts, request.pairs)?;
    let (using, slot) = resolve(&state, &caller, request.target, Method::Rerank).await?;
    let ranking = using.model.ranking()?;
    let shape = ranking.shape;
    let labels = u32::try_from(shape.used).unwrap_or(u32::MAX);
    let len_bytes = rows_len_bytes(pairs, labels, ElementType::F32).unwrap_or(u64::MAX);
    if len_bytes > MAX_INLINE_BYTES {
        return Err(RequestError::InlineTooLarge { len_bytes, limit: MAX_INLINE_BYTES });
    }
    let mut answer =
        Reranked { pairs, labels: ranking.labels.clone(), tokens: 0, truncated: Vec::new() };
    let wait = state.settings().segments.wait;
    let share = caller.inline.reserve(len_bytes, wait).await?;
    let mut output = Output::heap(pairs as usize, shape.used);
    if pairs > 0 {
        let rows = output.take_rows();
        let (job, waiting) = RowJob::of_pairs(caller.id, texts, request.pairs, rows, shape);
        ranking.queue.push(job)?;
        let done = waiting.done().await?;
        answer.tokens = done.tokens;
        answer.truncated = done.truncated;
    }
    let Ok(Finished::Inline(mut tail)) = output.finish() else {
        return Err(RequestError::Defect("a score outlived its computation"));
    };
    let activation = match request.activation {
        ScoreActivation::Model => ranking.activation,
        asked => asked,
    };
    if pairs as usize * shape.used <= MAX_INLINE_SCORES {
        activate(activation, shape.used, &mut tail);
    } else {
        let work = move || {
            activate(activation, shape.used, &mut tail);
            tail
        };
        let finished = tokio::task::spawn_blocking(work).await;
        tail = finished.map_err(|_| RequestError::Defect("an activation panicked"))?;
    }
    slot.counters.requests.fetch_add(1, Ordering::Relaxed);
    Ok(Answer { response: Response::Reranked(answer), tail, promise: Promise::Inline(share) })
}

/// The number of pairs that a number of texts form.
fn pairs(texts: u32, pairing: Pairing) -> Result<u32, RequestError> {
    match pairing {
        Pairing::QueryFirst => Ok(texts.saturating_sub(1)),
        Pairing::Adjacent if texts.is_multiple_of(2) => Ok(texts / 2),
        Pairing::Adjacent => Err(RequestError::OddTexts { texts }),
    }
}

/// Applies the activation to the scores of each pair, in the bytes of an answer.
fn activate(activation: ScoreActivation, labels: usize, bytes: &mut [u8]) {
    if matches!(activation, ScoreActivation::Identity | ScoreActivation::Model) {
        return;
    }
    let mut scores = vec![0.0; labels];
    for pair in bytes.as_chunks_mut::<4>().0.chunks_exact_mut(labels.max(1)) {
        for (score, bytes) in scores.iter_mut().zip(&*pair) {
            *score = f32::from_le_bytes(*bytes);
        }
        match activation {
            ScoreActivation::Softmax => softmax(&mut scores),
            ScoreActivation::Sigmoid => {
                scores.iter_mut().for_each(|score| *score = sigmoid(*score));
            }
            ScoreActivation::Identity | ScoreActivation::Model => {}
        }
        for (score, bytes) in scores.iter().zip(pair) {
            *bytes = score.to_le_bytes();
        }
    }
}

/// By the standard library's `exp`, unlike the kernels of the engine: a pair has few labels, so precision
/// matters more than speed.
fn sigmoid(value: f32) -> f32 {
    1.0 / (1.0 + (-value).exp())
}

fn softmax(values: &mut [f32]) {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter_mut().for_each(|value| *value = (*value - largest).exp());
    let sum: f32 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activated(activation: ScoreActivation, labels: usize, values: &[f32]) -> Vec<f32> {
        let mut bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        activate(activation, labels, &mut bytes);
        bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn texts_form_pairs_with_the_first_or_two_by_two() {
        let counts = |pairing| [0, 1, 2, 4].map(|texts| pairs(texts, pairing).ok());
        assert_eq!(counts(Pairing::QueryFirst), [Some(0), Some(0), Some(1), Some(3)]);
        assert_eq!(counts(Pairing::Adjacent), [Some(0), None, Some(1), Some(2)]);
    }

    #[test]
    fn each_pair_is_activated_by_itself() {
        let values = [0.0, 3f32.ln(), -1e4, 1e4];
        assert_eq!(activated(ScoreActivation::Identity, 2, &values), values);
        let close = |found: Vec<f32>, wanted: [f32; 4]| {
            let is_close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
            assert!(found.iter().zip(&wanted).all(is_close), "{found:?}, not {wanted:?}");
        };
        close(activated(ScoreActivation::Sigmoid, 1, &values), [0.5, 0.75, 0.0, 1.0]);
        close(activated(ScoreActivation::Softmax, 2, &values), [0.25, 0.75, 0.0, 1.0]);
        close(activated(ScoreActivation::Softmax, 1, &values), [1.0; 4]);
    }
}
