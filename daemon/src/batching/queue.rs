//! The texts that wait for one model, and how they become batches.
//!
//! Every connection has a lane. A lane holds jobs whose texts are still to be read as tokens, and
//! entries that are tokens already. Workers ask for [`Work`]: they read texts until a window of
//! tokens is ready, then compute. A window is filled from the lanes by deficit round robin (each
//! turn, a lane may spend one budget of tokens), so that a bulk job of one process and single
//! queries of another share the model; it is then sorted by length, short texts first, and cut
//! into batches.
//!
//! Batches are packed, so a mix of lengths wastes nothing; sorting answers single queries before
//! the paragraphs that came with them, and keeps a padded engine possible. The window is small on
//! purpose: what is in it goes before whatever arrives later.

use crate::batching::job::{Entry, Job};
use crate::ground::connection_id::ConnectionId;
use crate::ground::sync::lock;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// How batches are formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Tokens of one batch. A longer text is a batch of its own.
    pub tokens: usize,
    /// Texts of one batch.
    pub texts: usize,
}

/// Tokens are collected up to this many batches before they are sorted and cut.
const WINDOW_BATCHES: usize = 2;

/// Texts that one worker reads before others may take over.
const READ_TEXTS: usize = 1024;

/// Bytes of texts that may wait for one model.
const MAX_QUEUED_BYTES: usize = 256 << 20;

/// Bytes of texts that one connection may have waiting, so that none fills the queue alone.
const MAX_LANE_BYTES: usize = 64 << 20;

/// Bytes that a text counts beside its own: an empty one takes memory too.
const TEXT_BYTES: usize = 64;

/// The queue took no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// Too much waits already.
    #[error(
        "{waiting_bytes} bytes of text wait for this model, more than it takes: try again later"
    )]
    Full {
        /// How much waits, of all connections or of this one.
        waiting_bytes: usize,
    },
    /// The model is going away.
    #[error("the model is being unloaded")]
    Closed,
}

/// What a worker does next.
#[derive(Debug)]
pub(crate) enum Work {
    /// Read texts as tokens, and stop when so many tokens were read.
    Read(Part, usize),
    /// Compute rows.
    Compute(Vec<Entry>),
}

/// Texts of a job that are still to be read. No text is in two parts.
#[derive(Debug)]
pub(crate) struct Part {
    /// Whose texts.
    pub(crate) job: Arc<Job>,
    /// Which of those that it computes.
    pub(crate) texts: Range<usize>,
}

/// Shared by the sessions, which add jobs, and the workers, which take work.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: BatchLimits,
    lanes: Mutex<Lanes>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lanes {
    lanes: HashMap<ConnectionId, Lane>,
    /// Whose turn it is: every lane with anything in it, once.
    turns: VecDeque<ConnectionId>,
    ready: VecDeque<Vec<Entry>>,
    queued_bytes: usize,
    waiting_workers: usize,
    closed: bool,
}

#[derive(Debug, Default)]
struct Lane {
    unread: VecDeque<Part>,
    unread_bytes: usize,
    entries: VecDeque<Entry>,
    entry_tokens: usize,
    /// Tokens that the lane may still take in this turn.
    deficit: usize,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub(crate) fn new(limits: BatchLimits) -> Self {
        Self { limits, lanes: Mutex::default(), changed: Condvar::new() }
    }

    /// Adds a job.
    ///
    /// # Errors
    /// When too much waits already, or the model is going away.
    pub(crate) fn push(&self, job: Arc<Job>) -> Result<(), QueueError> {
        let mut lanes = lock(&self.lanes);
        if lanes.closed {
            return Err(QueueError::Closed);
        }
        let bytes = bytes_of(&job);
        // A single job that is larger than a bound cannot exist: a frame is smaller.
        let held = lanes.lanes.get(&job.connection).map_or(0, |lane| lane.unread_bytes);
        if lanes.queued_bytes + bytes > MAX_QUEUED_BYTES {
            return Err(QueueError::Full { waiting_bytes: lanes.queued_bytes });
        }
        if held + bytes > MAX_LANE_BYTES {
            return Err(QueueError::Full { waiting_bytes: held });
        }
        lanes.queued_bytes += bytes;
        let lane = lanes.lane(job.connection);
        lane.unread_bytes += bytes;
        let texts = 0..job.len();
        lane.unread.push_back(Part { job, texts });
        let wake = lanes.waiting_workers > 0;
        drop(lanes);
        if wake {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Waits for work; `None` once the queue is closed and empty.
    pub(crate) fn take(&self) -> Option<Work> {
        let mut lanes = lock(&self.lanes);
        loop {
            if let Some(work) = lanes.next(self.limits) {
                // More may be left for another worker.
                if lanes.waiting_workers > 0 && lanes.has_work() {
                    self.changed.notify_one();
                }
                return Some(work);
            }
            if lanes.closed {
                return None;
            }
            lanes.waiting_workers += 1;
            lanes = self.changed.wait(lanes).unwrap_or_else(PoisonError::into_inner);
            lanes.waiting_workers -= 1;
        }
    }

    /// Brings back what a worker has read, and what it has not.
    pub(crate) fn give_back(&self, unread: Part, entries: Vec<Entry>) {
        let tokens: usize = entries.iter().map(Entry::cost).sum();
        let mut lanes = lock(&self.lanes);
        let lane = lanes.lane(unread.job.connection);
        lane.entry_tokens += tokens;
        lane.entries.extend(entries);
        if !unread.texts.is_empty() {
            lane.unread.push_front(unread);
        }
    }

    /// Takes no more jobs; those inside are still computed.
    pub(crate) fn close(&self) {
        lock(&self.lanes).closed = true;
        self.changed.notify_all();
    }

    /// Texts that wait.
    pub(crate) fn queued_texts(&self) -> usize {
        lock(&self.lanes).lanes.values().map(Lane::texts).sum()
    }
}

/// What a job that waits counts against the bounds.
fn bytes_of(job: &Job) -> usize {
    job.texts.len_bytes() + job.len() * TEXT_BYTES
}

impl Entry {
    /// What it takes of a budget: an empty sequence is not free.
    pub(crate) fn cost(&self) -> usize {
        self.sequence.ids.len().max(1)
    }
}

impl Lane {
    fn texts(&self) -> usize {
        let unread = self.unread.iter().map(|part| part.texts.len());
        self.entries.len() + unread.sum::<usize>()
    }
}

impl Lanes {
    /// The connection's lane, in turn from now on.
    fn lane(&mut self, connection: ConnectionId) -> &mut Lane {
        self.lanes.entry(connection).or_insert_with(|| {
            self.turns.push_back(connection);
            Lane::default()
        })
    }

    fn has_work(&self) -> bool {
        !self.ready.is_empty()
            || self.lanes.values().any(|l| !l.entries.is_empty() || !l.unread.is_empty())
    }

    fn next(&mut self, limits: BatchLimits) -> Option<Work> {
        let window = limits.tokens * WINDOW_BATCHES;
        loop {
            if let Some(batch) = self.next_ready() {
                return Some(Work::Compute(batch));
            }
            // Every lane in turn has something to offer to the window before it is filled.
            if let Some(part) = self.next_part(window) {
                return Some(Work::Read(part, window));
            }
            if !self.has_work() {
                return None;
            }
            // What kept others from being read may have been cancelled, and is gone after this:
            // then there is no batch, and yet something to do.
            self.fill_window(limits, window);
        }
    }

    /// A batch that is ready, without what was cancelled since.
    fn next_ready(&mut self) -> Option<Vec<Entry>> {
        loop {
            let mut batch = self.ready.pop_front()?;
            batch.retain(|entry| !entry.job.is_cancelled());
            if !batch.is_empty() {
                return Some(batch);
            }
        }
    }

    /// A part to read, of the first lane in turn that has fewer tokens ready than a window.
    fn next_part(&mut self, window: usize) -> Option<Part> {
        let ready_tokens: usize = self.lanes.values().map(|lane| lane.entry_tokens).sum();
        for connection in &self.turns {
            let Some(lane) = self.lanes.get_mut(connection) else { continue };
            // A lane that has read nothing yet joins the window even if others could fill it.
            if lane.entry_tokens > 0 && ready_tokens >= window {
                continue;
            }
            while let Some(Part { job, mut texts }) = lane.unread.pop_front() {
                if texts.start == 0 {
                    // From here on the texts are being worked at; the bounds are on waiting ones.
                    let bytes = bytes_of(&job);
                    self.queued_bytes -= bytes;
                    lane.unread_bytes -= bytes;
                }
                if job.is_cancelled() {
                    continue;
                }
                if texts.len() > READ_TEXTS {
                    // Another worker may read on while this one reads.
                    let rest = texts.start + READ_TEXTS..texts.end;
                    texts.end = rest.start;
                    lane.unread.push_front(Part { job: Arc::clone(&job), texts: rest });
                }
                return Some(Part { job, texts });
            }
        }
        None
    }

    /// Deficit round robin over the lanes, then batches of similar lengths.
    fn fill_window(&mut self, limits: BatchLimits, window: usize) {
        let offered: usize = self.lanes.values().map(|lane| lane.entries.len()).sum();
        let mut taken = Vec::with_capacity(offered.min(window));
        let mut tokens = 0;
        while tokens < window {
            let Some(connection) = self.turns.pop_front() else { break };
            let Some(lane) = self.lanes.get_mut(&connection) else { continue };
            lane.deficit += limits.tokens;
            while let Some(entry) = lane.entries.front() {
                let cost = entry.cost();
                // A text longer than the budget goes when its lane has nothing in front of it.
                if cost > lane.deficit && cost <= limits.tokens {
                    break;
                }
                let Some(entry) = lane.entries.pop_front() else { break };
                lane.entry_tokens -= cost;
                lane.deficit = lane.deficit.saturating_sub(cost);
                if !entry.job.is_cancelled() {
                    tokens += cost;
                    taken.push(entry);
                }
                if lane.deficit == 0 || tokens >= window {
                    break;
                }
            }
            if lane.entries.is_empty() && lane.unread.is_empty() {
                self.lanes.remove(&connection);
            } else {
                if lane.entries.is_empty() {
                    lane.deficit = 0;
                }
                self.turns.push_back(connection);
                // Nothing but unread texts is left anywhere.
                if self.lanes.values().all(|lane| lane.entries.is_empty()) {
                    break;
                }
            }
        }
        self.cut(taken, limits);
    }

    fn cut(&mut self, mut taken: Vec<Entry>, limits: BatchLimits) {
        taken.sort_by_key(Entry::cost);
        let mut rest = taken.into_iter();
        while !rest.as_slice().is_empty() {
            let mut tokens = 0;
            let fits = |entry: &&Entry| {
                tokens += entry.cost();
                tokens <= limits.tokens
            };
            let count = rest.as_slice().iter().take(limits.texts).take_while(fits).count().max(1);
            self.ready.push_back(rest.by_ref().take(count).collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batching::job::Waiting;
    use crate::batching::row_shape::RowShape;
    use crate::segment::Output;
    use emberd_engine::Sequence;
    use emberd_protocol::{TextBlock, TextBuilder};

    const LIMITS: BatchLimits = BatchLimits { tokens: 10, texts: 4 };

    /// A job of texts; the waiting end keeps it wanted.
    fn job(connection: u64, texts: &[&str]) -> (Arc<Job>, Waiting) {
        let mut builder = TextBuilder::default();
        texts.iter().for_each(|text| builder.push(text).unwrap());
        let count = builder.count();
        let texts = TextBlock::parse(count, builder.into_bytes()).unwrap();
        let rows = Output::heap(texts.len(), 1).take_rows();
        let shape = RowShape { model: 1, used: 1, renormalize: false };
        Job::new(ConnectionId(connection), None, texts, rows, shape)
    }

    #[test]
    fn cancelled_texts_that_filled_the_window_hold_up_nothing_behind_them() {
        let queue = Queue::new(LIMITS);
        let (first, waiting) = job(1, &["xxxxx"; 30]);
        queue.push(first).unwrap();
        let Some(Work::Read(part, budget)) = queue.take() else { panic!("nothing to read") };
        read(&queue, part, budget);
        let (second, _waits) = job(1, &["live"]);
        queue.push(second).unwrap();
        drop(waiting);
        let next = lock(&queue.lanes).next(LIMITS);
        let Some(Work::Read(part, budget)) = next else { panic!("{next:?}") };
        assert_eq!(part.job.texts.get(part.texts.start), Some("live"));
        read(&queue, part, budget);
        assert!(matches!(queue.take(), Some(Work::Compute(batch)) if batch.len() == 1));
        assert_eq!((queue.queued_texts(), lock(&queue.lanes).lanes.len()), (0, 0));
    }

    /// Reads as a worker does, a token for each byte.
    fn read(queue: &Queue, mut part: Part, budget: usize) {
        let job = Arc::clone(&part.job);
        let mut homes = job.take_homes(part.texts.clone()).into_iter();
        let mut entries = Vec::new();
        let mut tokens = 0;
        while tokens < budget
            && let Some(home) = homes.next()
        {
            let text = job.texts.get(part.texts.start).unwrap();
            let sequence = Sequence { ids: vec![0; text.len()], ..Sequence::default() };
            tokens += text.len().max(1);
            entries.push(Entry { job: Arc::clone(&job), sequence, home });
            part.texts.start += 1;
        }
        job.put_back(part.texts.start, homes);
        queue.give_back(part, entries);
    }

    /// The batches that one worker would compute, as (connection, tokens) of each entry.
    fn drain(queue: &Queue) -> Vec<Vec<(u64, usize)>> {
        queue.close();
        let mut batches = Vec::new();
        while let Some(work) = queue.take() {
            match work {
                Work::Read(part, budget) => read(queue, part, budget),
                Work::Compute(batch) => batches.push(
                    batch.iter().map(|e| (e.job.connection.0, e.sequence.ids.len())).collect(),
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
                Work::Read(part, budget) => read(&queue, part, budget),
                Work::Compute(batch) => drop(batch),
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
    fn what_is_cancelled_after_it_was_put_into_batches_is_not_computed() {
        let queue = Queue::new(LIMITS);
        let (gone, waiting) = job(1, &["xxx"; 5]);
        let (kept, _kept) = job(2, &["yyyy"; 1]);
        queue.push(gone).unwrap();
        queue.push(kept).unwrap();
        let first = loop {
            match queue.take().unwrap() {
                Work::Read(part, budget) => read(&queue, part, budget),
                Work::Compute(batch) => break batch,
            }
        };
        assert!(first.len() < 6, "some of it is in another batch");
        drop((first, waiting));
        let batches = drain(&queue);
        assert!(batches.iter().flatten().all(|(connection, _)| *connection == 2), "{batches:?}");
    }

    #[test]
    fn workers_that_read_one_job_at_once_read_each_text_once() {
        let queue = Queue::new(BatchLimits { tokens: 100, texts: 1000 });
        let (job, _waiting) = job(1, &["x"; 5000]);
        queue.push(job).unwrap();
        // Two parts are out at a time, and come back in another order, each with a rest.
        let mut parts = Vec::new();
        let mut entries = 0;
        loop {
            match queue.take().unwrap() {
                Work::Read(part, budget) => parts.push((part, budget)),
                Work::Compute(batch) => entries += batch.len(),
            }
            if parts.len() == 2 || entries + 1024 > 5000 {
                for (part, budget) in parts.drain(..) {
                    read(&queue, part, budget);
                }
            }
            if entries == 5000 {
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
        assert_eq!(
            refused,
            Some(QueueError::Full { waiting_bytes: 3 * ((20 << 20) + TEXT_BYTES) })
        );
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
}
