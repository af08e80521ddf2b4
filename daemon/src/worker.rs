//! The threads that compute for one loaded model.
//!
//! On the CPU several workers share the immutable weights, one compute thread each: two threads
//! on two texts wait for nobody, two threads inside one matrix product wait for each other. Each
//! reads texts and computes rows, whichever its queue asks for.

use crate::engine::model::{ComputeError, Computer, EmbeddingModel};
use crate::job::{Entry, JobError};
use crate::latency::Times;
use crate::queue::{Part, Queue, Work};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};

/// What the workers of a model have done.
#[derive(Debug, Default)]
pub(crate) struct WorkDone {
    /// Texts embedded.
    pub(crate) texts: AtomicU64,
    /// Tokens computed.
    pub(crate) tokens: AtomicU64,
    /// Batches computed.
    pub(crate) batches: AtomicU64,
    /// How long texts waited, from their arrival until they were computed.
    pub(crate) waits: Times,
}

/// The running threads. Dropping closes the queue and waits for the work inside to end.
#[derive(Debug)]
pub(crate) struct Workers {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub(crate) fn start(
        name: &str,
        count: usize,
        model: &Arc<dyn EmbeddingModel>,
        queue: &Arc<Queue>,
        done: &Arc<WorkDone>,
    ) -> std::io::Result<Self> {
        let mut workers = Self { queue: Arc::clone(queue), threads: Vec::with_capacity(count) };
        for number in 0..count {
            let worker = Worker {
                model: Arc::clone(model),
                queue: Arc::clone(queue),
                done: Arc::clone(done),
                computer: Arc::clone(model).computer(),
            };
            // The kernel shows 15 characters of a thread's name.
            let thread = Builder::new().name(format!("{number}:{name}")).spawn(|| worker.run())?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// How many there are.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.threads.len()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // A worker catches the panics of its work; its own would be in the log already.
            let _ = thread.join();
        }
    }
}

struct Worker {
    model: Arc<dyn EmbeddingModel>,
    queue: Arc<Queue>,
    done: Arc<WorkDone>,
    computer: Box<dyn Computer>,
}

impl Worker {
    fn run(mut self) {
        while let Some(work) = self.queue.take() {
            match work {
                Work::Read(part, budget) => self.read(part, budget),
                Work::Compute(batch) => self.compute(batch),
            }
        }
    }

    fn read(&self, mut part: Part, budget: usize) {
        let job = Arc::clone(&part.job);
        let mut rows = job.take_rows(part.texts.clone()).into_iter();
        let mut entries = Vec::with_capacity(rows.len().min(budget));
        let (mut cost, mut tokens, mut truncated) = (0, 0, Vec::new());
        while cost < budget
            && let Some(row) = rows.next()
            && let Some(text) = job.texts.get(part.texts.start)
        {
            match guarded(|| self.model.encode(text)) {
                Ok(sequence) => {
                    if sequence.truncated {
                        truncated.push(part.texts.start);
                    }
                    tokens += sequence.ids.len();
                    let entry = Entry { job: Arc::clone(&job), sequence, row };
                    cost += entry.cost();
                    entries.push(entry);
                }
                Err(error) => {
                    drop(row);
                    job.fail(error);
                    break;
                }
            }
            part.texts.start += 1;
        }
        job.note_read(tokens, &truncated);
        job.put_back(part.texts.start, rows);
        self.queue.give_back(part, entries);
    }

    fn compute(&mut self, mut batch: Vec<Entry>) {
        for same in batch.chunk_by(|a, b| Arc::ptr_eq(&a.job, &b.job)) {
            self.done.waits.note_many(same[0].job.queued.elapsed(), same.len() as u64);
        }
        let (sequences, mut rows): (Vec<_>, Vec<_>) =
            batch.iter_mut().map(|entry| (&entry.sequence, entry.row.as_mut_slice())).unzip();
        let tokens: usize = sequences.iter().map(|sequence| sequence.ids.len()).sum();
        let result = guarded(|| self.computer.compute(&sequences, &mut rows));
        match result {
            Ok(()) => {
                self.done.texts.fetch_add(batch.len() as u64, Ordering::Relaxed);
                self.done.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
                self.done.batches.fetch_add(1, Ordering::Relaxed);
                complete(batch);
            }
            Err(error) => {
                // Scratch memory may be half written after a panic.
                self.computer = Arc::clone(&self.model).computer();
                self.fail(batch, error);
            }
        }
    }

    /// A failed batch of several texts is computed again one by one, so that a text that the
    /// engine cannot compute fails its own request and not its neighbours'.
    fn fail(&mut self, batch: Vec<Entry>, error: JobError) {
        if batch.len() > 1 {
            tracing::warn!(%error, texts = batch.len(), "a batch failed and is computed in parts");
            for entry in batch {
                self.compute(vec![entry]);
            }
            return;
        }
        if let Some(Entry { job, row, .. }) = batch.into_iter().next() {
            drop(row);
            job.fail(error);
        }
    }
}

/// Counts rows down, one run of the same job at a time; a row is given back before it counts.
fn complete(batch: Vec<Entry>) {
    let mut entries = batch.into_iter().peekable();
    while let Some(Entry { job, row, .. }) = entries.next() {
        drop(row);
        let mut count = 1;
        while let Some(same) = entries.next_if(|entry| Arc::ptr_eq(&entry.job, &job)) {
            drop(same);
            count += 1;
        }
        job.complete(count);
    }
}

/// A panic costs the request that it happened in, not the worker.
fn guarded<T>(work: impl FnOnce() -> Result<T, ComputeError>) -> Result<T, JobError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(JobError::from),
        Err(_) => Err(JobError::Panicked),
    }
}
