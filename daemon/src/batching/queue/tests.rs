//! What one worker, or several, get to do.

use crate::batching::queue::row_lanes::TEXT_BYTES;
use crate::batching::queue::{BatchLimits, Queue, QueueError, TextRange, WorkerTask};
use crate::batching::row_job::{RowJob, RowJobHandle, TokenizedText};
use crate::batching::row_shape::RowShape;
use crate::ground::connection_id::ConnectionId;
use crate::ground::sync::lock;
use crate::segment::Output;
use emberd_engine::Sequence;
use emberd_protocol::{TextBlock, TextBuilder};
use std::sync::Arc;

const LIMITS: BatchLimits = BatchLimits { tokens: 10, texts: 4 };

/// A job of texts; its handle keeps it from being cancelled.
fn job(connection: u64, texts: &[&str]) -> (Arc<RowJob>, RowJobHandle) {
    let mut builder = TextBuilder::default();
    texts.iter().for_each(|text| builder.push(text).unwrap());
    let count = builder.count();
    let texts = TextBlock::parse(count, builder.into_bytes()).unwrap();
    let rows = Output::heap(texts.len(), 1).take_rows();
    let shape = RowShape { model: 1, used: 1, renormalize: false };
    RowJob::new(ConnectionId(connection), None, texts, rows, shape)
}

#[test]
fn cancelled_texts_that_filled_the_window_hold_up_nothing_behind_them() {
    let queue = Queue::new(LIMITS);
    let (first, waiting) = job(1, &["xxxxx"; 30]);
    queue.push(first).unwrap();
    let Some(WorkerTask::Tokenize(range, budget)) = queue.take() else {
        panic!("nothing to tokenize")
    };
    tokenize(&queue, range, budget);
    let (second, _waits) = job(1, &["live"]);
    queue.push(second).unwrap();
    drop(waiting);
    let next = lock(&queue.state).lanes.next(LIMITS);
    let Some(WorkerTask::Tokenize(range, budget)) = next else { panic!("{next:?}") };
    assert_eq!(range.job.texts.get(range.texts.start), Some("live"));
    tokenize(&queue, range, budget);
    assert!(matches!(queue.take(), Some(WorkerTask::Compute(batch)) if batch.len() == 1));
    assert_eq!((queue.queued_texts(), lock(&queue.state).lanes.len()), (0, 0));
}

/// Tokenizes as a worker does; each byte is a token.
fn tokenize(queue: &Queue, mut range: TextRange, budget: usize) {
    let job = Arc::clone(&range.job);
    let mut targets = job.take_targets(range.texts.clone()).into_iter();
    let mut tokenized = Vec::new();
    let mut tokens = 0;
    while tokens < budget
        && let Some(target) = targets.next()
    {
        let text = job.texts.get(range.texts.start).unwrap();
        let sequence = Sequence { ids: vec![0; text.len()], ..Sequence::default() };
        tokens += text.len().max(1);
        tokenized.push(TokenizedText { job: Arc::clone(&job), sequence, target });
        range.texts.start += 1;
    }
    job.put_back(range.texts.start, targets);
    queue.put_back(range, tokenized);
}

/// The batches that one worker would compute, as (connection, tokens) of each text.
fn drain(queue: &Queue) -> Vec<Vec<(u64, usize)>> {
    queue.close();
    let mut batches = Vec::new();
    while let Some(work) = queue.take() {
        match work {
            WorkerTask::Tokenize(range, budget) => tokenize(queue, range, budget),
            WorkerTask::Compute(batch) => batches.push(
                batch.iter().map(|text| (text.job.connection.0, text.sequence.ids.len())).collect(),
            ),
        }
    }
    batches
}

#[test]
fn batches_keep_both_limits_and_lose_no_text() {
    let queue = Queue::new(LIMITS);
    let texts: Vec<String> = (0..57).map(|n| "x".repeat(n * 7 % 13)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (job, _waiting) = job(1, &texts);
    queue.push(job).unwrap();
    assert_eq!(queue.queued_texts(), 57);
    let batches = drain(&queue);
    assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 57);
    for batch in &batches {
        let tokens: usize = batch.iter().map(|(_, tokens)| *tokens).sum();
        assert!(batch.len() == 1 || (tokens <= 10 && batch.len() <= 4), "{batch:?}");
        assert!(batch.is_sorted(), "sorted by length: {batch:?}");
    }
    assert_eq!(queue.queued_texts(), 0);
}

#[test]
fn a_single_query_does_not_wait_behind_the_bulk_of_another_client() {
    let queue = Queue::new(LIMITS);
    let (bulk, _bulk) = job(1, &["xxxxx"; 100]);
    queue.push(bulk).unwrap();
    // A worker is in the middle of the bulk job when the query comes.
    for _ in 0..4 {
        match queue.take().unwrap() {
            WorkerTask::Tokenize(range, budget) => tokenize(&queue, range, budget),
            WorkerTask::Compute(batch) => drop(batch),
        }
    }
    let (query, _query) = job(2, &["q"]);
    queue.push(query).unwrap();
    let batches = drain(&queue);
    let position = batches.iter().position(|batch| batch.contains(&(2, 1))).unwrap();
    assert!(position <= 2, "the query was computed in batch {position} of {}", batches.len());
}

#[test]
fn two_bulk_clients_share_the_model_evenly_by_tokens() {
    let queue = Queue::new(LIMITS);
    let (short, _short) = job(1, &["x"; 400]);
    let (long, _long) = job(2, &["xxxxx"; 80]);
    queue.push(short).unwrap();
    queue.push(long).unwrap();
    let batches = drain(&queue);
    let half = &batches[..batches.len() / 2];
    let tokens = |connection| -> usize {
        half.iter().flatten().filter(|(c, _)| *c == connection).map(|(_, tokens)| tokens).sum()
    };
    let (a, b) = (tokens(1), tokens(2));
    assert!(a.abs_diff(b) <= 40, "{a} tokens against {b}");
}

#[test]
fn a_cancelled_job_is_not_computed() {
    let queue = Queue::new(LIMITS);
    let (gone, waiting) = job(1, &["xxx"; 50]);
    let (kept, _kept) = job(2, &["yyyy"; 3]);
    queue.push(gone).unwrap();
    queue.push(kept).unwrap();
    drop(waiting);
    let batches = drain(&queue);
    assert!(batches.iter().flatten().all(|(connection, _)| *connection == 2), "{batches:?}");
    assert_eq!(batches.iter().flatten().count(), 3);
}

#[test]
fn texts_cancelled_after_batching_are_not_computed() {
    let queue = Queue::new(LIMITS);
    let (gone, waiting) = job(1, &["xxx"; 5]);
    let (kept, _kept) = job(2, &["yyyy"; 1]);
    queue.push(gone).unwrap();
    queue.push(kept).unwrap();
    let first = loop {
        match queue.take().unwrap() {
            WorkerTask::Tokenize(range, budget) => tokenize(&queue, range, budget),
            WorkerTask::Compute(batch) => break batch,
        }
    };
    assert!(first.len() < 6, "some of it is in another batch");
    drop((first, waiting));
    let batches = drain(&queue);
    assert!(batches.iter().flatten().all(|(connection, _)| *connection == 2), "{batches:?}");
}

#[test]
fn workers_that_tokenize_one_job_at_once_tokenize_each_text_once() {
    let queue = Queue::new(BatchLimits { tokens: 100, texts: 1000 });
    let (job, _waiting) = job(1, &["x"; 5000]);
    queue.push(job).unwrap();
    // Two ranges are out at a time, and come back in another order, each with a rest.
    let mut ranges = Vec::new();
    let mut computed = 0;
    loop {
        match queue.take().unwrap() {
            WorkerTask::Tokenize(range, budget) => ranges.push((range, budget)),
            WorkerTask::Compute(batch) => computed += batch.len(),
        }
        if ranges.len() == 2 || computed + 1024 > 5000 {
            for (range, budget) in ranges.drain(..) {
                tokenize(&queue, range, budget);
            }
        }
        if computed == 5000 {
            break;
        }
    }
    assert_eq!(queue.queued_texts(), 0);
}

#[test]
fn one_connection_cannot_fill_the_queue_for_others() {
    let queue = Queue::new(LIMITS);
    let text = "x".repeat(20 << 20);
    let mut waiting = Vec::new();
    let refused = (0..10).find_map(|_| {
        let (job, kept) = job(1, &[&text]);
        waiting.push(kept);
        queue.push(job).err()
    });
    assert_eq!(refused, Some(QueueError::Full { waiting_bytes: 3 * ((20 << 20) + TEXT_BYTES) }));
    let (other, _other) = job(2, &["hello"]);
    assert_eq!(queue.push(other), Ok(()));
}

#[test]
fn a_closed_queue_takes_no_job_and_ends_its_workers() {
    let queue = Queue::new(LIMITS);
    queue.close();
    let (job, _waiting) = job(1, &["x"]);
    assert_eq!(queue.push(job), Err(QueueError::Closed));
    assert!(queue.take().is_none());
}
