//! Filling masks: the queue and the workers of a masked language model.
//!
//! As for embeddings, several workers share the weights. Each computes on one thread, in batches of
//! texts from all clients.

#[cfg(test)]
mod tests;

pub use crate::batching::queue::{BatchLimits, QueueError};
pub use crate::batching::worker::WorkDone;

use crate::batching::fair_queue::{FairQueue, Queued};
use crate::batching::text_job::{Job, JobHandle, JobText, TextError, guarded};
use crate::ground::connection_id::ConnectionId;
use emberd_engine::{MaskContext, MaskScores, MaskedModel, Sequence};
use emberd_protocol::{
    FilledMask, FilledText, MAX_BODY_BYTES, MaskCandidate, MasksFilled, TextBlock,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};

/// Bytes of a candidate in a message besides its text: id, length, probability.
const CANDIDATE_BYTES: usize = 4 + 8 + 4;

/// The texts that wait for one model.
#[derive(Default)]
pub struct FillQueue {
    items: FairQueue<MaskText>,
}

/// The requester's end of a request. Dropping it cancels what has not been computed.
pub struct FillHandle {
    job: JobHandle<FillParams, FilledAndTokens>,
}

/// What the workers of a model share.
#[derive(Debug, Clone)]
pub struct FillWork {
    /// The model.
    pub model: Arc<dyn MaskedModel>,
    /// A longer text is truncated.
    pub max_tokens: usize,
    /// The limits of a batch.
    pub limits: BatchLimits,
    /// The texts that wait.
    pub queue: Arc<FillQueue>,
    /// What was computed.
    pub done: Arc<WorkDone>,
}

/// The running threads. Dropping closes the queue and waits until the work in it is done.
#[derive(Debug)]
pub struct FillWorkers {
    queue: Arc<FillQueue>,
    threads: Vec<JoinHandle<()>>,
}

impl FillQueue {
    /// Adds a request's texts.
    ///
    /// # Errors
    /// When too much waits already, or the queue is closed.
    pub fn push(
        &self,
        connection: ConnectionId,
        texts: TextBlock,
        top_k: u32,
    ) -> Result<FillHandle, QueueError> {
        let job = Job::push(&self.items, connection, texts, FillParams { top_k })?;
        Ok(FillHandle { job })
    }

    /// How many texts wait.
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

impl FillHandle {
    /// Waits for the candidates.
    ///
    /// # Errors
    /// When a text has no mask, there are fewer candidates than requested, or the engine failed.
    pub async fn done(self) -> Result<MasksFilled, TextError> {
        let (texts, tokens): (Vec<_>, Vec<u64>) = self.job.done().await?.into_iter().unzip();
        Ok(MasksFilled { texts, tokens: tokens.iter().sum() })
    }
}

impl fmt::Debug for FillHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FillHandle").finish_non_exhaustive()
    }
}

impl FillWorkers {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// When the system cannot start another thread.
    pub fn start(name: &str, count: usize, work: &FillWork) -> std::io::Result<Self> {
        let queue = Arc::clone(&work.queue);
        let mut workers = Self { queue, threads: Vec::with_capacity(count) };
        for number in 0..count {
            let context = Arc::clone(&work.model).mask_context();
            let worker = MaskWorker { work: work.clone(), context };
            // The kernel shows 15 characters of a thread's name.
            let thread = Builder::new().name(format!("m{number}:{name}")).spawn(|| worker.run())?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// How many threads there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.threads.len()
    }
}

impl Drop for FillWorkers {
    fn drop(&mut self) {
        self.queue.items.close();
        for thread in self.threads.drain(..) {
            // A worker catches the panics of its work. A panic of its own is in the log already.
            let _ = thread.join();
        }
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
struct FillParams {
    top_k: u32,
}

/// The masks of a text, and the tokens that were computed for them.
type FilledAndTokens = (FilledText, u64);

/// A text that waits.
type MaskText = JobText<FillParams, FilledAndTokens>;

/// A tokenized text.
struct TokenizedMaskText {
    text: MaskText,
    input: Sequence,
}

struct MaskWorker {
    work: FillWork,
    context: Box<dyn MaskContext>,
}

impl MaskWorker {
    fn run(mut self) {
        while let Some(first) = self.work.queue.items.wait() {
            let batch = self.next_batch(first);
            self.compute(batch);
        }
    }

    /// The next texts of all clients in turn, up to the limits of a batch, with the same `top_k`.
    fn next_batch(&self, first: MaskText) -> Vec<TokenizedMaskText> {
        let top_k = first.job.params.top_k;
        let (mut batch, mut tokens) = (Vec::new(), 0);
        let mut next = Some(first);
        while tokens < self.work.limits.tokens && batch.len() < self.work.limits.texts {
            let alike = |item: &MaskText| item.job.params.top_k == top_k;
            let Some(text) = next.take().or_else(|| self.work.queue.items.take(alike)) else {
                break;
            };
            match self.tokenize(&text) {
                Ok(input) => {
                    tokens += input.ids.len();
                    batch.push(TokenizedMaskText { text, input });
                }
                Err(error) => text.job.fail(error),
            }
        }
        batch
    }

    fn tokenize(&self, text: &MaskText) -> Result<Sequence, TextError> {
        let top_k = text.job.params.top_k;
        let masks = text.as_str().matches(self.work.model.mask()).count();
        if masks == 0 {
            let mask = self.work.model.mask().to_owned();
            return Err(TextError::NoMask { text: text.text, mask });
        }
        if top_k == 0 {
            return Err(TextError::NoCandidates);
        }
        if masks.saturating_mul(top_k as usize) > MAX_BODY_BYTES / CANDIDATE_BYTES {
            return Err(TextError::TooLarge { limit: MAX_BODY_BYTES });
        }
        guarded(|| Ok(self.work.model.tokenize(text.as_str(), self.work.max_tokens)?))
    }

    fn compute(&mut self, mut batch: Vec<TokenizedMaskText>) {
        batch.retain(|entry| !entry.text.is_cancelled());
        let Some(first) = batch.first() else { return };
        let top_k = first.text.job.params.top_k as usize;
        for entry in &batch {
            self.work.done.waits.record(entry.text.job.queued.elapsed());
        }
        let inputs: Vec<&Sequence> = batch.iter().map(|entry| &entry.input).collect();
        let context = &mut self.context;
        match guarded(|| Ok(context.fill(&inputs, top_k)?)) {
            Ok(filled) => {
                let tokens: usize = inputs.iter().map(|input| input.ids.len()).sum();
                self.work.done.texts.fetch_add(batch.len() as u64, Ordering::Relaxed);
                self.work.done.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
                self.work.done.batches.fetch_add(1, Ordering::Relaxed);
                for (entry, masks) in batch.into_iter().zip(filled) {
                    self.answer(entry, masks);
                }
            }
            Err(error) => self.fail(batch, error),
        }
    }

    /// Computes a failed batch again one by one, so that a text that the engine cannot compute
    /// fails its own request and not its neighbours'.
    fn fail(&mut self, mut batch: Vec<TokenizedMaskText>, error: TextError) {
        // A panic may leave the scratch memory half written.
        self.context = Arc::clone(&self.work.model).mask_context();
        if batch.len() > 1 {
            tracing::warn!(%error, texts = batch.len(), "a batch failed and is computed in parts");
            batch.into_iter().for_each(|entry| self.compute(vec![entry]));
        } else if let Some(entry) = batch.pop() {
            entry.text.job.fail(error);
        }
    }

    fn answer(&self, TokenizedMaskText { text, input }: TokenizedMaskText, masks: Vec<MaskScores>) {
        let wanted = text.job.params.top_k;
        if masks.is_empty() {
            // The mask was in the part that was cut off.
            let mask = self.work.model.mask().to_owned();
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
            let text = self.work.model.token_text(id);
            MaskCandidate { id, text, score }
        });
        FilledMask { position, candidates: spelled.collect() }
    }
}

/// Bytes of an answer in a message.
fn len_bytes(answer: &FilledText) -> usize {
    const TEXT: usize = 8 + 1;
    const MASK: usize = 4 + 8;
    let candidates = answer.masks.iter().flat_map(|mask| &mask.candidates);
    let spelled: usize = candidates.map(|c| CANDIDATE_BYTES + c.text.len()).sum();
    TEXT + MASK * answer.masks.len() + spelled
}
