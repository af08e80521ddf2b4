//! The threads that compute rows for one loaded model.
//!
//! On the CPU several workers share the immutable weights, and each computes on one thread: two
//! threads with a text each never wait for each other, while two threads inside one matrix product
//! do. A worker tokenizes texts or computes rows, whichever its queue asks for.

#[cfg(test)]
pub(crate) mod tests;

use crate::batching::claimed::ClaimedBatch;
use crate::batching::queue::{Queue, TextRange, WorkerTask};
use crate::batching::row_job::{JobError, RowTarget, TokenizedText};
use crate::ground::histogram::TimeHistogram;
use emberd_engine::{ComputeContext, ComputeError, EmbeddingModel};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};

/// What the workers of a model have done.
#[derive(Debug, Default)]
pub struct WorkDone {
    /// Texts computed.
    pub(crate) texts: AtomicU64,
    /// Tokens computed.
    pub(crate) tokens: AtomicU64,
    /// Batches computed.
    pub(crate) batches: AtomicU64,
    /// How long texts waited, from the arrival of their request until a worker computed them.
    pub(crate) waits: TimeHistogram,
}

/// The running threads. Dropping closes the queue and waits until the work in it is done.
#[derive(Debug)]
pub(crate) struct Workers {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// When the system cannot start another thread.
    pub(crate) fn start(
        name: &str,
        count: usize,
        model: &Arc<dyn EmbeddingModel>,
        queue: &Arc<Queue>,
        done: &Arc<WorkDone>,
    ) -> std::io::Result<Self> {
        let mut workers = Self { queue: Arc::clone(queue), threads: Vec::with_capacity(count) };
        for number in 0..count {
            let worker = RowWorker {
                model: Arc::clone(model),
                queue: Arc::clone(queue),
                done: Arc::clone(done),
                context: Arc::clone(model).compute_context(),
            };
            // The kernel shows 15 characters of a thread's name.
            let thread = Builder::new().name(format!("{number}:{name}")).spawn(|| worker.run())?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// How many threads there are.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.threads.len()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // A worker catches the panics of its work. A panic of its own is in the log already.
            let _ = thread.join();
        }
    }
}

struct RowWorker {
    model: Arc<dyn EmbeddingModel>,
    queue: Arc<Queue>,
    done: Arc<WorkDone>,
    context: Box<dyn ComputeContext>,
}

impl RowWorker {
    fn run(mut self) {
        while let Some(task) = self.queue.take() {
            match task {
                WorkerTask::Tokenize(range, budget) => self.tokenize(range, budget),
                WorkerTask::Compute(batch) => self.compute(batch),
            }
        }
    }

    fn tokenize(&self, mut range: TextRange, budget: usize) {
        let job = Arc::clone(&range.job);
        let mut targets = job.take_targets(range.texts.clone()).into_iter();
        let mut tokenized = Vec::with_capacity(targets.len().min(budget));
        let (mut cost, mut filled, mut truncated) = (0, 0, Vec::new());
        while cost < budget
            && let Some(mut target) = targets.next()
        {
            // Another request may have had the same text computed while this one waited.
            if let Some(was_truncated) = target.fill_if_computed() {
                truncated.extend(target.positions().filter(|_| was_truncated));
                filled += 1;
            } else {
                match guarded(|| job.tokenize(&*self.model, target.text)) {
                    Ok(sequence) => {
                        truncated.extend(target.positions().filter(|_| sequence.truncated));
                        let text = TokenizedText { job: Arc::clone(&job), sequence, target };
                        cost += text.cost();
                        tokenized.push(text);
                    }
                    Err(error) => {
                        drop(target);
                        job.fail(error);
                        break;
                    }
                }
            }
            range.texts.start += 1;
        }
        job.note_truncated(truncated);
        job.put_back(range.texts.start, targets);
        self.queue.put_back(range, tokenized);
        if filled > 0 {
            job.complete(filled, None);
        }
    }

    fn compute(&mut self, batch: Vec<TokenizedText>) {
        let ClaimedBatch { granted: mut batch, filled } = ClaimedBatch::of(batch);
        complete(filled, |_| None);
        if batch.is_empty() {
            return;
        }
        for same in batch.chunk_by(|a, b| Arc::ptr_eq(&a.job, &b.job)) {
            self.done.waits.record_many(same[0].job.queued.elapsed(), same.len() as u64);
        }
        let tokens: usize = batch.iter().map(|text| text.sequence.ids.len()).sum();
        match self.compute_rows(&mut batch) {
            Ok(attached) => {
                self.done.texts.fetch_add(batch.len() as u64, Ordering::Relaxed);
                self.done.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
                self.done.batches.fetch_add(1, Ordering::Relaxed);
                complete(batch, |text| Some(text.sequence.ids.len()));
                complete(attached, |_| None);
            }
            Err(error) => {
                // A panic may leave the scratch memory half written.
                self.context = Arc::clone(&self.model).compute_context();
                self.fail(batch, error);
            }
        }
    }

    /// Computes the rows of a batch and lands them. Returns the texts that were attached to them,
    /// filled.
    fn compute_rows(
        &mut self,
        batch: &mut [TokenizedText],
    ) -> Result<Vec<TokenizedText>, JobError> {
        let context = &mut self.context;
        if batch.iter().all(|text| text.target.shape.is_as_made()) {
            // Computed in place.
            let (sequences, mut rows): (Vec<_>, Vec<_>) = batch
                .iter_mut()
                .map(|text| (&text.sequence, text.target.row.as_mut_slice()))
                .unzip();
            guarded(|| context.compute(&sequences, &mut rows))?;
            return Ok(batch.iter_mut().flat_map(land).collect());
        }
        let width = self.model.spec().dimension;
        let mut values = vec![0.0; width * batch.len()];
        let sequences: Vec<_> = batch.iter().map(|text| &text.sequence).collect();
        let mut rows: Vec<_> = values.chunks_exact_mut(width).collect();
        guarded(|| context.compute(&sequences, &mut rows))?;
        let rows = batch.iter_mut().zip(rows);
        Ok(rows.flat_map(|(text, row)| land_reshaped(text, row)).collect())
    }

    /// Computes a failed batch again in parts: in halves if the device had no memory for the whole,
    /// else one by one, so that a text that the engine cannot compute fails its own request and not
    /// its neighbours'.
    ///
    /// Texts that were attached to a failed one are computed on their own: the failure need not
    /// recur, and if it does, it is the failure of their own request.
    fn fail(&mut self, mut batch: Vec<TokenizedText>, error: JobError) {
        let is_out_of_memory = matches!(error, JobError::Compute(ComputeError::OutOfMemory { .. }));
        let mut attached = Vec::new();
        for ticket in batch.iter().filter_map(|text| text.target.ticket.as_ref()) {
            attached.extend(ticket.abandon());
        }
        attached.retain(|text| !text.job.is_cancelled());
        if batch.len() > 1 {
            tracing::warn!(%error, texts = batch.len(), "a batch failed and is computed in parts");
        } else if let Some(TokenizedText { job, target, .. }) = batch.pop() {
            drop(target);
            job.fail(error);
        }
        if is_out_of_memory {
            let half = batch.split_off(batch.len() / 2);
            self.compute(batch);
            self.compute(half);
        } else {
            batch.into_iter().for_each(|text| self.compute(vec![text]));
        }
        attached.into_iter().for_each(|text| self.compute(vec![text]));
    }
}

/// Hands on a row that was computed in place: to duplicates of its text, to the cache, and to the
/// texts that were attached to it, which are returned.
fn land(TokenizedText { target, sequence, .. }: &mut TokenizedText) -> Vec<TokenizedText> {
    target.copy_to_duplicates();
    let RowTarget { row, ticket: Some(ticket), .. } = target else { return Vec::new() };
    let row = row.as_mut_slice();
    let mut attached = ticket.land(row, sequence.truncated);
    attached.iter_mut().for_each(|text| text.target.fill(row));
    attached
}

/// Writes a row whose target has another shape than the model makes.
fn land_reshaped(
    TokenizedText { target, sequence, .. }: &mut TokenizedText,
    row: &[f32],
) -> Vec<TokenizedText> {
    target.fill(row);
    let Some(ticket) = &target.ticket else { return Vec::new() };
    let mut attached = ticket.land(row, sequence.truncated);
    attached.iter_mut().for_each(|text| text.target.fill(row));
    attached
}

/// Counts filled targets, one run of the same job at a time. A target is dropped before it counts.
fn complete(batch: Vec<TokenizedText>, computed_tokens: impl Fn(&TokenizedText) -> Option<usize>) {
    let mut texts = batch.into_iter().peekable();
    while let Some(text) = texts.next() {
        let (mut count, mut tokens) = (1, computed_tokens(&text));
        let TokenizedText { job, target, .. } = text;
        drop(target);
        while let Some(same) = texts.next_if(|text| Arc::ptr_eq(&text.job, &job)) {
            tokens = tokens.zip(computed_tokens(&same)).map(|(sum, more)| sum + more);
            count += 1;
        }
        job.complete(count, tokens);
    }
}

/// A panic costs the request that caused it, not the worker.
fn guarded<T>(work: impl FnOnce() -> Result<T, ComputeError>) -> Result<T, JobError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(JobError::from),
        Err(_) => Err(JobError::Panicked),
    }
}
