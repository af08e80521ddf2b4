//! Continuous batching: the texts of all clients form one batch that changes between steps.
//!
//! Between two steps, finished and cancelled texts leave and waiting texts join. A short answer does
//! not wait for a long one, and a step computes a token for every text at about the cost of a token
//! for one.

use crate::batching::fair_queue::{LaneTurn, Queued};
use crate::batching::generation::config::SamplingParams;
use crate::batching::generation::detokenizer::Detokenizer;
use crate::batching::generation::queue::{GenerateParams, QueuedText, TextQueue};
use crate::batching::generation::running::{
    DecoderChanges, DecoderEntry, PendingText, RunningText,
};
use crate::batching::generation::text_state::{Progress, TextState};
use crate::batching::generation::text_work::TextWork;
use crate::batching::text_job::{TextError, guarded};
use crate::ground::connection_id::ConnectionId;
use emberd_engine::{ComputeError, Decoder, Seq2SeqModel, Sequence};
use emberd_protocol::GeneratedText;
use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Tokens of inputs that are encoded between two steps, so that running texts do not wait longer. A
/// longer input joins alone.
const ADMITTED_TOKENS: usize = 1024;

/// Bytes of texts that are tokenized between two steps, for the same reason.
const ADMITTED_BYTES: usize = 256 << 10;

/// One in `KEPT_FREE` rows of the batch is kept free for connections without a running text: they
/// join at the next step, however much others have queued.
const KEPT_FREE: usize = 4;

/// The batch of one model.
pub(super) struct Batch {
    model: Arc<dyn Seq2SeqModel>,
    queue: Arc<TextQueue>,
    work: Arc<TextWork>,
    threads: usize,
    /// `None` after a failure, until it is needed.
    decoder: Option<Box<dyn Decoder>>,
    running: Vec<RunningText>,
    /// Texts of a batch that failed. Each starts again, alone, so that a text that the engine cannot
    /// compute fails its own request and not its neighbours'.
    retry_alone: VecDeque<PendingText>,
    logits: Vec<f32>,
}

impl Batch {
    /// An empty batch, and a decoder that computes with `threads` threads.
    ///
    /// # Errors
    /// When the system cannot start another thread.
    pub(super) fn new(
        threads: usize,
        model: &Arc<dyn Seq2SeqModel>,
        queue: &Arc<TextQueue>,
        work: &Arc<TextWork>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            decoder: Some(Arc::clone(model).decoder(threads)?),
            model: Arc::clone(model),
            queue: Arc::clone(queue),
            work: Arc::clone(work),
            threads,
            running: Vec::new(),
            retry_alone: VecDeque::new(),
            logits: Vec::new(),
        })
    }

    /// Computes until the queue is closed and empty.
    pub(super) fn run(mut self) {
        loop {
            let mut first = None;
            if self.running.is_empty() && self.retry_alone.is_empty() {
                let Some(item) = self.queue.items.wait() else { return };
                first = Some(item);
            }
            self.drop_cancelled();
            let joining = self.next_to_join(first);
            self.admit(joining);
            self.step();
            self.work.running.store(self.running.len(), Ordering::Relaxed);
        }
    }

    /// Removes texts whose requester is gone.
    fn drop_cancelled(&mut self) {
        self.retry_alone.retain(|pending| !pending.text.is_cancelled());
        let cancelled = |running: &mut RunningText| running.pending.text.is_cancelled();
        let left =
            self.running.extract_if(.., cancelled).map(|running| running.in_decoder).collect();
        self.change(DecoderChanges { left, ..DecoderChanges::default() });
    }

    /// The texts that join now, tokenized.
    fn next_to_join(&mut self, first: Option<QueuedText>) -> Vec<PendingText> {
        if self.running.is_empty()
            && let Some(failed) = self.retry_alone.pop_front()
        {
            return vec![failed];
        }
        if self.running.iter().any(|running| running.pending.retry_alone) {
            return Vec::new();
        }
        let mut rows: usize =
            self.running.iter().map(|running| running.in_decoder.rows.len()).sum();
        let here = self.running.iter().map(|running| running.pending.text.job.connection);
        let mut here: BTreeSet<ConnectionId> = here.collect();
        let (all, kept_free) = (self.queue.rows, self.queue.rows / KEPT_FREE);
        let (mut joining, mut tokens, mut bytes) = (Vec::new(), 0, 0);
        let mut next = first;
        while tokens < ADMITTED_TOKENS && bytes < ADMITTED_BYTES {
            let turn = |connection: ConnectionId, item: &QueuedText| match rows + item.rows() {
                _ if rows == 0 => LaneTurn::Take,
                wanted if here.contains(&connection) && wanted > all - kept_free => LaneTurn::Skip,
                wanted if wanted > all => LaneTurn::Wait,
                _ => LaneTurn::Take,
            };
            let Some(item) = next.take().or_else(|| self.queue.items.take_in_turn(turn)) else {
                break;
            };
            self.work.waits.record(item.job.queued.elapsed());
            let (taken, connection) = (item.rows(), item.job.connection);
            bytes += item.len_bytes();
            if let Some(pending) = self.tokenize(item) {
                here.insert(connection);
                rows += taken;
                tokens += pending.input.ids.len();
                joining.push(pending);
            }
        }
        joining
    }

    /// Tokenizes a text, or fails its job.
    fn tokenize(&self, text: QueuedText) -> Option<PendingText> {
        let config = &text.job.params.config;
        match guarded(|| Ok(self.model.tokenize(text.as_str(), config.max_input_tokens)?)) {
            Ok(input) => {
                let seed = match config.search.sampling() {
                    Some(SamplingParams { seed: Some(seed), .. }) => seed,
                    Some(SamplingParams { seed: None, .. }) => {
                        RandomState::new().hash_one(text.text)
                    }
                    None => 0,
                };
                let detokenizer = Detokenizer::default();
                Some(PendingText { text, input, seed, detokenizer, retry_alone: false })
            }
            Err(error) => {
                text.job.fail(error);
                None
            }
        }
    }

    /// Encodes the inputs of texts that join.
    fn admit(&mut self, joining: Vec<PendingText>) {
        if joining.is_empty() {
            return;
        }
        let inputs: Vec<&Sequence> = joining.iter().map(|pending| &pending.input).collect();
        let entries = self.engine(|decoder| {
            let inputs = decoder.admit(&inputs)?;
            let configs = joining.iter().map(|pending| &pending.text.job.params.config);
            let entry = |input| DecoderEntry { input, rows: Vec::new() };
            let mut entries: Vec<DecoderEntry> = inputs.into_iter().map(entry).collect();
            let started = entries
                .iter_mut()
                .zip(configs)
                .try_for_each(|(entry, config)| entry.begin(decoder, config));
            if started.is_err() {
                entries.drain(..).for_each(|entry| entry.leave(decoder));
            }
            started.map(|()| entries)
        });
        match entries {
            Ok(entries) => {
                let tokens: usize = inputs.iter().map(|input| input.ids.len()).sum();
                self.work.input_tokens.fetch_add(tokens as u64, Ordering::Relaxed);
                for (pending, in_decoder) in joining.into_iter().zip(entries) {
                    let GenerateParams { config, sink } = &pending.text.job.params;
                    let defaults = self.model.defaults();
                    let state = TextState::new(
                        config,
                        defaults,
                        &pending.input.ids,
                        pending.seed,
                        sink.is_some(),
                    );
                    self.running.push(RunningText { pending, in_decoder, state });
                }
            }
            // Refused: running texts are unaffected, and each joining text is tried by itself.
            Err(TextError::Compute(_)) if joining.len() > 1 => {
                joining.into_iter().for_each(|pending| self.admit(vec![pending]));
            }
            Err(error @ TextError::Compute(_)) => {
                joining.iter().for_each(|pending| pending.text.job.fail(error.clone()));
            }
            Err(error) => self.fail(error, joining),
        }
    }

    /// Computes one more token for every sequence and beam.
    fn step(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let (mut next, mut counts) = (Vec::new(), Vec::with_capacity(self.running.len()));
        for RunningText { in_decoder, state, .. } in &self.running {
            let rows = state.next();
            counts.push(rows.len());
            let id = |(row, id): (usize, u32)| Some((*in_decoder.rows.get(row)?, id));
            let rows = rows.into_iter().filter_map(id);
            next.extend(rows);
        }
        let mut logits = std::mem::take(&mut self.logits);
        if let Err(error) = self.engine(|decoder| decoder.step(&next, &mut logits)) {
            self.fail(error, Vec::new());
            return;
        }
        self.work.tokens.fetch_add(next.len() as u64, Ordering::Relaxed);
        self.work.steps.fetch_add(1, Ordering::Relaxed);

        let width = logits.len() / next.len().max(1);
        let mut rest = logits.as_mut_slice();
        let mut changes = DecoderChanges::default();
        for (mut running, count) in std::mem::take(&mut self.running).into_iter().zip(counts) {
            let rows;
            (rows, rest) = rest.split_at_mut(count * width);
            match guarded(|| running.advance(&*self.model, rows)) {
                Ok(Progress::Continue) => self.running.push(running),
                Ok(Progress::Reorder(from)) => {
                    changes.reorder(&running.in_decoder.rows, from);
                    self.running.push(running);
                }
                Ok(Progress::End) => {
                    let RunningText { pending, in_decoder, state } = running;
                    changes.left.push(in_decoder);
                    self.answer(pending, state);
                }
                Err(error) => {
                    changes.left.push(running.in_decoder);
                    running.pending.text.job.fail(error);
                }
            }
        }
        self.logits = logits;
        self.change(changes);
    }

    fn answer(&self, pending: PendingText, state: TextState) {
        let PendingText { text, input, detokenizer, .. } = pending;
        match guarded(|| state.into_sequences(&|ids| Ok(self.model.detokenize(ids)?))) {
            Ok(mut sequences) => {
                // The answer of a stream is what was streamed.
                if text.job.params.sink.is_some()
                    && let Some(sequence) = sequences.first_mut()
                {
                    sequence.text = detokenizer.into_sent();
                }
                let input_tokens = u32::try_from(input.ids.len()).unwrap_or(u32::MAX);
                let truncated = input.truncated;
                let answer = GeneratedText { sequences, input_tokens, truncated };
                let len_bytes = len_bytes(&answer);
                self.work.texts.fetch_add(1, Ordering::Relaxed);
                text.answer(answer, len_bytes);
            }
            Err(error) => text.job.fail(error),
        }
    }

    /// Applies changes to the decoder.
    fn change(&mut self, changes: DecoderChanges) {
        if changes.left.is_empty() && changes.reordered.is_empty() {
            return;
        }
        let done = self.engine(|decoder| {
            for (rows, from) in &changes.reordered {
                decoder.reorder(rows, from)?;
            }
            changes.left.into_iter().for_each(|entry| entry.leave(decoder));
            Ok(())
        });
        if let Err(error) = done {
            self.fail(error, Vec::new());
        }
    }

    /// Drops the decoder, whose state is undefined after a failure. A text that was computed alone
    /// has failed; several start again, one by one.
    fn fail(&mut self, error: TextError, joining: Vec<PendingText>) {
        let decoder = self.decoder.take();
        // It is gone even if its drop panics.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(decoder)));
        let running = self.running.drain(..).map(|running| running.pending);
        let mut texts: Vec<PendingText> = running.chain(joining).collect();
        if texts.len() > 1 {
            tracing::warn!(%error, texts = texts.len(), "a batch failed and is computed in parts");
            texts.iter_mut().for_each(|pending| pending.retry_alone = true);
            self.retry_alone.extend(texts);
        } else if let Some(pending) = texts.pop() {
            pending.text.job.fail(error);
        }
    }

    /// Runs `work` on the decoder; after a failure on a new one.
    fn engine<T>(
        &mut self,
        work: impl FnOnce(&mut dyn Decoder) -> Result<T, ComputeError>,
    ) -> Result<T, TextError> {
        let Self { model, decoder, threads, .. } = self;
        guarded(|| {
            let decoder = match decoder {
                Some(decoder) => decoder,
                None => {
                    let fresh = Arc::clone(model).decoder(*threads);
                    decoder.insert(fresh.map_err(|error| TextError::Threads(Arc::new(error)))?)
                }
            };
            Ok(work(&mut **decoder)?)
        })
    }
}

/// Bytes of an answer in a message.
fn len_bytes(answer: &GeneratedText) -> usize {
    const SEQUENCE: usize = 8 + 8 + 5 + 4;
    const TEXT: usize = 8 + 4 + 1;
    let sequences = answer.sequences.iter();
    TEXT + sequences.map(|s| SEQUENCE + s.text.len() + size_of_val(&*s.ids)).sum::<usize>()
}
