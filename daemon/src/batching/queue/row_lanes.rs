//! One lane for each connection, and whose turn it is. Pure: no lock, no thread.

use crate::batching::queue::error::QueueError;
use crate::batching::queue::task::{TextRange, WorkerTask};
use crate::batching::queue::token_window::{BatchLimits, TokenWindow};
use crate::batching::row_job::{RowJob, TokenizedText};
use crate::ground::connection_id::ConnectionId;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Texts that one worker tokenizes before another may continue.
const TOKENIZED_TEXTS: usize = 1024;

/// Bytes of texts that may wait for one model.
const MAX_QUEUED_BYTES: usize = 256 << 20;

/// Bytes of texts that may wait in one lane, so that no connection fills the queue alone.
const MAX_LANE_BYTES: usize = 64 << 20;

/// Bytes that each text costs in addition to its own: an empty text takes memory too.
pub(super) const TEXT_BYTES: usize = 64;

/// Jobs by connection, and the batches that were formed of them.
#[derive(Debug, Default)]
pub(super) struct RowLanes {
    lanes: HashMap<ConnectionId, RowLane>,
    /// The order of turns: each lane that holds anything, once.
    turns: VecDeque<ConnectionId>,
    ready: VecDeque<Vec<TokenizedText>>,
    queued_bytes: usize,
}

impl RowLanes {
    /// Adds a job to its connection's lane.
    ///
    /// # Errors
    /// When too much waits already.
    pub(super) fn push(&mut self, job: Arc<RowJob>) -> Result<(), QueueError> {
        let bytes = bytes_of(&job);
        // A single job cannot exceed a bound, since a frame is smaller.
        let held = self.lanes.get(&job.connection).map_or(0, |lane| lane.untokenized_bytes);
        if self.queued_bytes + bytes > MAX_QUEUED_BYTES {
            return Err(QueueError::Full { waiting_bytes: self.queued_bytes });
        }
        if held + bytes > MAX_LANE_BYTES {
            return Err(QueueError::Full { waiting_bytes: held });
        }
        self.queued_bytes += bytes;
        let lane = self.lane(job.connection);
        lane.untokenized_bytes += bytes;
        let texts = 0..job.len();
        lane.untokenized.push_back(TextRange { job, texts });
        Ok(())
    }

    /// Returns what a worker has tokenized, and the rest of the range that it was given.
    pub(super) fn put_back(&mut self, rest: TextRange, tokenized: Vec<TokenizedText>) {
        let lane = self.lane(rest.job.connection);
        lane.tokenized_tokens += tokenized.iter().map(TokenizedText::cost).sum::<usize>();
        lane.tokenized.extend(tokenized);
        if !rest.texts.is_empty() {
            lane.untokenized.push_front(rest);
        }
    }

    /// The next task; `None` if there is nothing to do.
    pub(super) fn next(&mut self, limits: BatchLimits) -> Option<WorkerTask> {
        let window = limits.window_tokens();
        loop {
            if let Some(batch) = self.next_batch() {
                return Some(WorkerTask::Compute(batch));
            }
            // Each lane gets a chance to contribute to the window before it is filled.
            if let Some(range) = self.next_range(window) {
                return Some(WorkerTask::Tokenize(range, window));
            }
            if !self.has_work() {
                return None;
            }
            // Cancelled texts may have kept others from being tokenized. This removes them; if
            // it forms no batch, there is still something to tokenize in the next round.
            self.fill_window(limits);
        }
    }

    /// Whether a worker would find a task.
    pub(super) fn has_work(&self) -> bool {
        !self.ready.is_empty() || self.lanes.values().any(|lane| !lane.is_empty())
    }

    /// Texts in the lanes.
    pub(super) fn texts(&self) -> usize {
        self.lanes.values().map(RowLane::texts).sum()
    }

    /// How many lanes there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// The connection's lane, which takes turns from now on.
    fn lane(&mut self, connection: ConnectionId) -> &mut RowLane {
        self.lanes.entry(connection).or_insert_with(|| {
            self.turns.push_back(connection);
            RowLane::default()
        })
    }

    /// A batch that is ready, without texts that were cancelled since it was formed.
    fn next_batch(&mut self) -> Option<Vec<TokenizedText>> {
        loop {
            let mut batch = self.ready.pop_front()?;
            batch.retain(|text| !text.job.is_cancelled());
            if !batch.is_empty() {
                return Some(batch);
            }
        }
    }

    /// Texts to tokenize, of the first lane in turn that has fewer tokens ready than a window.
    fn next_range(&mut self, window: usize) -> Option<TextRange> {
        let ready_tokens: usize = self.lanes.values().map(|lane| lane.tokenized_tokens).sum();
        for connection in &self.turns {
            let Some(lane) = self.lanes.get_mut(connection) else { continue };
            // A lane without any tokens joins the window even if others could fill it.
            if lane.tokenized_tokens > 0 && ready_tokens >= window {
                continue;
            }
            while let Some(TextRange { job, mut texts }) = lane.untokenized.pop_front() {
                if texts.start == 0 {
                    // The bounds apply to texts that wait, and these are now being worked on.
                    let bytes = bytes_of(&job);
                    self.queued_bytes -= bytes;
                    lane.untokenized_bytes -= bytes;
                }
                if job.is_cancelled() {
                    continue;
                }
                if texts.len() > TOKENIZED_TEXTS {
                    // Another worker may tokenize the rest at the same time.
                    let rest = texts.start + TOKENIZED_TEXTS..texts.end;
                    texts.end = rest.start;
                    lane.untokenized.push_front(TextRange { job: Arc::clone(&job), texts: rest });
                }
                return Some(TextRange { job, texts });
            }
        }
        None
    }

    /// Fills a window from the lanes by deficit round robin, and cuts it into batches.
    fn fill_window(&mut self, limits: BatchLimits) {
        let available = self.lanes.values().map(|lane| lane.tokenized.len()).sum();
        let mut window = TokenWindow::new(limits, available);
        while !window.is_full() {
            let Some(connection) = self.turns.pop_front() else { break };
            let Some(lane) = self.lanes.get_mut(&connection) else { continue };
            lane.spend_turn(limits, &mut window);
            if lane.is_empty() {
                self.lanes.remove(&connection);
            } else {
                self.turns.push_back(connection);
                // Only untokenized texts are left in all lanes.
                if self.lanes.values().all(|lane| lane.tokenized.is_empty()) {
                    break;
                }
            }
        }
        self.ready.extend(window.into_batches());
    }
}

#[derive(Debug, Default)]
struct RowLane {
    untokenized: VecDeque<TextRange>,
    untokenized_bytes: usize,
    tokenized: VecDeque<TokenizedText>,
    tokenized_tokens: usize,
    /// Tokens that the lane may still spend in this turn.
    deficit: usize,
}

impl RowLane {
    fn is_empty(&self) -> bool {
        self.tokenized.is_empty() && self.untokenized.is_empty()
    }

    fn texts(&self) -> usize {
        let untokenized = self.untokenized.iter().map(|range| range.texts.len());
        self.tokenized.len() + untokenized.sum::<usize>()
    }

    /// Moves texts into the window until this turn's budget is spent.
    fn spend_turn(&mut self, limits: BatchLimits, window: &mut TokenWindow) {
        self.deficit += limits.tokens;
        while let Some(text) = self.tokenized.front() {
            let cost = text.cost();
            // A text longer than the whole budget goes as soon as it is the first of its lane.
            if cost > self.deficit && cost <= limits.tokens {
                break;
            }
            let Some(text) = self.tokenized.pop_front() else { break };
            self.tokenized_tokens -= cost;
            self.deficit = self.deficit.saturating_sub(cost);
            if !text.job.is_cancelled() {
                window.push(text);
            }
            if self.deficit == 0 || window.is_full() {
                break;
            }
        }
        if self.tokenized.is_empty() {
            self.deficit = 0;
        }
    }
}

/// What a waiting job counts against the bounds.
fn bytes_of(job: &RowJob) -> usize {
    job.texts.len_bytes() + job.len() * TEXT_BYTES
}
