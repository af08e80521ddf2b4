//! What may stand at the masks of texts: the workers of a masked language model, and the texts that
//! wait for them.
//!
//! As for embeddings, several workers share the weights, one compute thread each, and each computes
//! batches of texts from all clients.
#[cfg(test)]
pub(crate) mod tests;

pub use crate::batching::queue::{BatchLimits, QueueError};
pub use crate::batching::worker::WorkDone;

use crate::batching::fair_queue::{FairQueue, Queued};
use crate::batching::text_job::{Job, JobText, TextError, Waiting, guarded};
use crate::ground::connection_id::ConnectionId;
use emberd_engine::Sequence;
use emberd_engine::{MaskFiller, MaskScores, MaskedModel};
use emberd_protocol::{
    FilledMask, FilledText, MAX_BODY_BYTES, MaskCandidate, MasksFilled, TextBlock,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};

/// What a candidate takes of a message beside its text: number, length, probability.
const CANDIDATE_BYTES: usize = 4 + 8 + 4;

/// What is wanted of the texts of a job.
#[derive(Debug, Clone, Copy)]
struct Wish {
    top_k: u32,
}

/// The masks of a text, and the tokens that were computed for them.
type Answer = (FilledText, u64);

type Item = JobText<Wish, Answer>;

/// The texts that wait for one model.
#[derive(Default)]
pub struct FillQueue {
    items: FairQueue<Item>,
}

/// The waiting end of a job. Dropping it cancels what has not been computed.
pub struct FillWaiting {
    waiting: Waiting<Wish, Answer>,
}

/// The running threads. Dropping closes the queue and waits for the work inside to end.
#[derive(Debug)]
pub struct FillWorkers {
    queue: Arc<FillQueue>,
    threads: Vec<JoinHandle<()>>,
}

impl FillQueue {
    /// Adds a request's texts.
    ///
    /// # Errors
    /// When too much waits already, or the model is going away.
    pub fn push(
        &self,
        connection: ConnectionId,
        texts: TextBlock,
        top_k: u32,
    ) -> Result<FillWaiting, QueueError> {
        let waiting = Job::push(&self.items, connection, texts, Wish { top_k })?;
        Ok(FillWaiting { waiting })
    }

    /// Texts that wait.
    #[must_use]
    pub fn queued_texts(&self) -> usize {
        self.items.len()
    }
}

impl fmt::Debug for FillQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FillQueue").finish_non_exhaustive()
    }
}

impl FillWaiting {
    /// Waits for the candidates.
    ///
    /// # Errors
    /// When a text holds no mask, there are not so many candidates, or the work failed.
    pub async fn done(self) -> Result<MasksFilled, TextError> {
        let (texts, tokens): (Vec<_>, Vec<u64>) = self.waiting.done().await?.into_iter().unzip();
        Ok(MasksFilled { texts, tokens: tokens.iter().sum() })
    }
}

impl fmt::Debug for FillWaiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FillWaiting").finish_non_exhaustive()
    }
}

impl FillWorkers {
    /// Starts `count` threads. `max_tokens` are read of a text, at most.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn start(
        name: &str,
        count: usize,
        model: &Arc<dyn MaskedModel>,
        max_tokens: usize,
        limits: BatchLimits,
        queue: &Arc<FillQueue>,
        done: &Arc<WorkDone>,
    ) -> std::io::Result<Self> {
        let mut workers = Self { queue: Arc::clone(queue), threads: Vec::with_capacity(count) };
        for number in 0..count {
            let worker = Worker {
                model: Arc::clone(model),
                max_tokens,
                limits,
                queue: Arc::clone(queue),
                done: Arc::clone(done),
                filler: Arc::clone(model).mask_context(),
            };
            // The kernel shows 15 characters of a thread's name.
            let thread = Builder::new().name(format!("m{number}:{name}")).spawn(|| worker.run())?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.threads.len()
    }
}

impl Drop for FillWorkers {
    fn drop(&mut self) {
        self.queue.items.close();
        for thread in self.threads.drain(..) {
            // A worker catches the panics of its work; its own would be in the log already.
            let _ = thread.join();
        }
    }
}

struct Worker {
    model: Arc<dyn MaskedModel>,
    max_tokens: usize,
    limits: BatchLimits,
    queue: Arc<FillQueue>,
    done: Arc<WorkDone>,
    filler: Box<dyn MaskFiller>,
}

/// A text as tokens.
struct Entry {
    text: Item,
    input: Sequence,
}

impl Worker {
    fn run(mut self) {
        while let Some(first) = self.queue.items.wait() {
            let batch = self.next_batch(first);
            self.compute(batch);
        }
    }

    /// Texts of all clients, in turn, as many as a batch takes and as want so many candidates.
    fn next_batch(&self, first: Item) -> Vec<Entry> {
        let top_k = first.job.wish.top_k;
        let (mut batch, mut tokens) = (Vec::new(), 0);
        let mut next = Some(first);
        while tokens < self.limits.tokens && batch.len() < self.limits.texts {
            let alike = |item: &Item| item.job.wish.top_k == top_k;
            let Some(text) = next.take().or_else(|| self.queue.items.take(alike)) else { break };
            match self.read(&text) {
                Ok(input) => {
                    tokens += input.ids.len();
                    batch.push(Entry { text, input });
                }
                Err(error) => text.job.fail(error),
            }
        }
        batch
    }

    fn read(&self, text: &Item) -> Result<Sequence, TextError> {
        let top_k = text.job.wish.top_k;
        let masks = text.as_str().matches(self.model.mask()).count();
        if masks == 0 {
            let mask = self.model.mask().to_owned();
            return Err(TextError::NoMask { text: text.text, mask });
        }
        if top_k == 0 {
            return Err(TextError::NoCandidates);
        }
        if masks.saturating_mul(top_k as usize) > MAX_BODY_BYTES / CANDIDATE_BYTES {
            return Err(TextError::TooLarge { limit: MAX_BODY_BYTES });
        }
        guarded(|| Ok(self.model.encode(text.as_str(), self.max_tokens)?))
    }

    fn compute(&mut self, mut batch: Vec<Entry>) {
        batch.retain(|entry| !entry.text.is_cancelled());
        let Some(first) = batch.first() else { return };
        let top_k = first.text.job.wish.top_k as usize;
        for entry in &batch {
            self.done.waits.note(entry.text.job.queued.elapsed());
        }
        let inputs: Vec<&Sequence> = batch.iter().map(|entry| &entry.input).collect();
        let filler = &mut self.filler;
        match guarded(|| Ok(filler.fill(&inputs, top_k)?)) {
            Ok(filled) => {
                let tokens: usize = inputs.iter().map(|input| input.ids.len()).sum();
                self.done.texts.fetch_add(batch.len() as u64, Ordering::Relaxed);
                self.done.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
                self.done.batches.fetch_add(1, Ordering::Relaxed);
                for (entry, masks) in batch.into_iter().zip(filled) {
                    self.answer(entry, masks);
                }
            }
            Err(error) => self.fail(batch, error),
        }
    }

    /// A failed batch of several texts is computed again one by one, so that a text that the
    /// engine cannot compute fails its own request and not its neighbours'.
    fn fail(&mut self, mut batch: Vec<Entry>, error: TextError) {
        // Scratch memory may be half written after a panic.
        self.filler = Arc::clone(&self.model).mask_context();
        if batch.len() > 1 {
            tracing::warn!(%error, texts = batch.len(), "a batch failed and is computed in parts");
            batch.into_iter().for_each(|entry| self.compute(vec![entry]));
        } else if let Some(entry) = batch.pop() {
            entry.text.job.fail(error);
        }
    }

    fn answer(&self, Entry { text, input }: Entry, masks: Vec<MaskScores>) {
        let wanted = text.job.wish.top_k;
        if masks.is_empty() {
            // It stands behind what the model reads.
            let mask = self.model.mask().to_owned();
            return text.job.fail(TextError::NoMask { text: text.text, mask });
        }
        if let Some(few) = masks.iter().find(|mask| mask.candidates.len() < wanted as usize) {
            let found = few.candidates.len();
            return text.job.fail(TextError::FewCandidates { wanted, found });
        }
        let masks = masks.into_iter().map(|mask| self.spell(mask)).collect();
        let answer = FilledText { masks, truncated: input.truncated };
        let len_bytes = len_bytes(&answer);
        text.answer((answer, input.ids.len() as u64), len_bytes);
    }

    fn spell(&self, MaskScores { position, candidates }: MaskScores) -> FilledMask {
        let spelled = candidates.into_iter().map(|(id, score)| {
            let text = self.model.token_text(id);
            MaskCandidate { id, text, score }
        });
        FilledMask { position, candidates: spelled.collect() }
    }
}

/// What an answer takes of a message.
fn len_bytes(answer: &FilledText) -> usize {
    const TEXT: usize = 8 + 1;
    const MASK: usize = 4 + 8;
    let candidates = answer.masks.iter().flat_map(|mask| &mask.candidates);
    let spelled: usize = candidates.map(|c| CANDIDATE_BYTES + c.text.len()).sum();
    TEXT + MASK * answer.masks.len() + spelled
}
