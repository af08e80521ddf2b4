//! The threads that compute for one loaded model.
//!
//! On the CPU several workers share the immutable weights, one compute thread each: two threads
//! on two texts wait for nobody, two threads inside one matrix product wait for each other. Each
//! reads texts and computes rows, whichever its queue asks for.
#[cfg(test)]
pub(crate) mod tests;

use crate::batching::job::{Entry, Home, JobError};
use crate::batching::queue::{Part, Queue, Work};
use crate::cache::{Claimed, claim};
use crate::request::latency::Times;
use emberd_engine::{ComputeContext, ComputeError, EmbeddingModel};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};

/// What the workers of a model have done.
#[derive(Debug, Default)]
pub struct WorkDone {
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
                computer: Arc::clone(model).compute_context(),
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
    computer: Box<dyn ComputeContext>,
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
        let mut homes = job.take_homes(part.texts.clone()).into_iter();
        let mut entries = Vec::with_capacity(homes.len().min(budget));
        let (mut cost, mut filled, mut truncated) = (0, 0, Vec::new());
        while cost < budget
            && let Some(mut home) = homes.next()
        {
            // Another request may have had the same text computed while this one waited.
            if let Some(was_truncated) = home.look_again() {
                truncated.extend(home.positions().filter(|_| was_truncated));
                filled += 1;
            } else {
                match guarded(|| job.encode(&*self.model, home.text)) {
                    Ok(sequence) => {
                        truncated.extend(home.positions().filter(|_| sequence.truncated));
                        let entry = Entry { job: Arc::clone(&job), sequence, home };
                        cost += entry.cost();
                        entries.push(entry);
                    }
                    Err(error) => {
                        drop(home);
                        job.fail(error);
                        break;
                    }
                }
            }
            part.texts.start += 1;
        }
        job.note_truncated(truncated);
        job.put_back(part.texts.start, homes);
        self.queue.give_back(part, entries);
        if filled > 0 {
            job.complete(filled, None);
        }
    }

    fn compute(&mut self, batch: Vec<Entry>) {
        let Claimed { mine: mut batch, filled } = claim(batch);
        complete(filled, |_| None);
        if batch.is_empty() {
            return;
        }
        for same in batch.chunk_by(|a, b| Arc::ptr_eq(&a.job, &b.job)) {
            self.done.waits.note_many(same[0].job.queued.elapsed(), same.len() as u64);
        }
        let tokens: usize = batch.iter().map(|entry| entry.sequence.ids.len()).sum();
        match self.compute_rows(&mut batch) {
            Ok(attached) => {
                self.done.texts.fetch_add(batch.len() as u64, Ordering::Relaxed);
                self.done.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
                self.done.batches.fetch_add(1, Ordering::Relaxed);
                complete(batch, |entry| Some(entry.sequence.ids.len()));
                complete(attached, |_| None);
            }
            Err(error) => {
                // Scratch memory may be half written after a panic.
                self.computer = Arc::clone(&self.model).compute_context();
                self.fail(batch, error);
            }
        }
    }

    /// Computes the rows of a batch, hands them on, and answers the entries that waited for them.
    fn compute_rows(&mut self, batch: &mut [Entry]) -> Result<Vec<Entry>, JobError> {
        let computer = &mut self.computer;
        if batch.iter().all(|entry| entry.home.shape.is_as_made()) {
            // Straight into their places.
            let (sequences, mut rows): (Vec<_>, Vec<_>) = batch
                .iter_mut()
                .map(|entry| (&entry.sequence, entry.home.row.as_mut_slice()))
                .unzip();
            guarded(|| computer.compute(&sequences, &mut rows))?;
            return Ok(land(batch));
        }
        let width = self.model.spec().dimension;
        let mut values = vec![0.0; width * batch.len()];
        let sequences: Vec<_> = batch.iter().map(|entry| &entry.sequence).collect();
        let mut rows: Vec<_> = values.chunks_exact_mut(width).collect();
        guarded(|| computer.compute(&sequences, &mut rows))?;
        let rows = batch.iter_mut().zip(rows);
        Ok(rows.flat_map(|(entry, row)| land_cut(entry, row)).collect())
    }

    /// A failed batch of several texts is computed again in parts: in halves where the device had no
    /// memory for all at once, else one by one, so that a text that the engine cannot compute fails
    /// its own request and not its neighbours'.
    ///
    /// Those who waited for a text that failed compute it themselves: what was wrong need not
    /// happen again, and if it does, it is their own failure.
    fn fail(&mut self, mut batch: Vec<Entry>, error: JobError) {
        let error_is_of_size = matches!(error, JobError::Compute(ComputeError::OutOfMemory { .. }));
        let mut attached = Vec::new();
        for ticket in batch.iter().filter_map(|entry| entry.home.ticket.as_ref()) {
            attached.extend(ticket.abandon());
        }
        attached.retain(|entry| !entry.job.is_cancelled());
        if batch.len() > 1 {
            tracing::warn!(%error, texts = batch.len(), "a batch failed and is computed in parts");
        } else if let Some(Entry { job, home, .. }) = batch.pop() {
            drop(home);
            job.fail(error);
        }
        if error_is_of_size {
            let half = batch.split_off(batch.len() / 2);
            self.compute(batch);
            self.compute(half);
        } else {
            batch.into_iter().for_each(|entry| self.compute(vec![entry]));
        }
        attached.into_iter().for_each(|entry| self.compute(vec![entry]));
    }
}

/// Hands on the rows of a computed batch: to the same text's other places, to the cache, and to the
/// entries that waited for them, which it answers.
fn land(batch: &mut [Entry]) -> Vec<Entry> {
    let mut attached = Vec::new();
    for Entry { home, sequence, .. } in batch {
        home.spread();
        let Home { row, ticket: Some(ticket), .. } = home else { continue };
        let row = row.as_mut_slice();
        for mut entry in ticket.land(row, sequence.truncated) {
            entry.home.fill(row);
            attached.push(entry);
        }
    }
    attached
}

/// Hands on a row that is another in its place than the model made.
fn land_cut(Entry { home, sequence, .. }: &mut Entry, row: &[f32]) -> Vec<Entry> {
    home.fill(row);
    let Some(ticket) = &home.ticket else { return Vec::new() };
    let mut attached = ticket.land(row, sequence.truncated);
    attached.iter_mut().for_each(|entry| entry.home.fill(row));
    attached
}

/// Counts homes down, one run of the same job at a time; a home is given back before it counts.
fn complete(batch: Vec<Entry>, computed_tokens: impl Fn(&Entry) -> Option<usize>) {
    let mut entries = batch.into_iter().peekable();
    while let Some(entry) = entries.next() {
        let (mut count, mut tokens) = (1, computed_tokens(&entry));
        let Entry { job, home, .. } = entry;
        drop(home);
        while let Some(same) = entries.next_if(|entry| Arc::ptr_eq(&entry.job, &job)) {
            tokens = tokens.zip(computed_tokens(&same)).map(|(sum, more)| sum + more);
            count += 1;
        }
        job.complete(count, tokens);
    }
}

/// A panic costs the request that it happened in, not the worker.
fn guarded<T>(work: impl FnOnce() -> Result<T, ComputeError>) -> Result<T, JobError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(JobError::from),
        Err(_) => Err(JobError::Panicked),
    }
}
