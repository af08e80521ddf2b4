//! The worker of a model that makes texts: the requests of all clients are one changing batch.
//!
//! Between two steps finished and cancelled texts leave it and waiting ones join, so that a short
//! answer does not wait for a long one, and a step computes a token for everybody at about the cost
//! of a token for one.
#[cfg(test)]
pub(crate) mod tests;

use crate::batching::fair_queue::{Queued, Turn};
use crate::batching::generation::config::Drawing;
use crate::batching::generation::making::{Making, Progress};
use crate::batching::generation::queue::{Item, TextQueue, Wish};
use crate::batching::generation::reading::Reading;
use crate::batching::generation::running::{Changes, Pending, Place, Running};
use crate::batching::text_job::{TextError, guarded};
use crate::ground::connection_id::ConnectionId;
use crate::request::latency::Times;
use emberd_engine::{ComputeError, Sequence};
use emberd_engine::{Decoder, Seq2SeqModel};
use emberd_protocol::GeneratedText;
use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};

/// Tokens of inputs that are read between two steps: the answers that run meanwhile wait for no
/// more. A longer input is read alone.
const ADMITTED_TOKENS: usize = 1024;

/// Bytes of texts that are split into tokens between two steps, for the same reason.
const ADMITTED_BYTES: usize = 256 << 10;

/// One part in so many of the batch is kept free for clients of whom nothing runs: they join at the
/// next step, however much others want.
const KEPT_FREE: usize = 4;

/// What the worker of a model has done.
#[derive(Debug, Default)]
pub struct TextWork {
    /// Texts that were answered.
    pub(crate) texts: AtomicU64,
    /// Tokens of inputs that were read.
    pub(crate) input_tokens: AtomicU64,
    /// Tokens that were computed: one for each answer or beam at each step.
    pub(crate) tokens: AtomicU64,
    /// Steps that were computed.
    pub(crate) steps: AtomicU64,
    /// Texts whose answers are being made now.
    pub(crate) running: AtomicUsize,
    /// How long texts waited, from their arrival until they were read.
    pub(crate) waits: Times,
}

/// The running thread. Dropping closes the queue and waits for the work inside to end.
#[derive(Debug)]
pub struct TextWorker {
    queue: Arc<TextQueue>,
    thread: Option<JoinHandle<()>>,
}

impl TextWorker {
    /// Starts the thread, which computes with so many threads, itself included.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn start(
        name: &str,
        threads: usize,
        model: &Arc<dyn Seq2SeqModel>,
        queue: &Arc<TextQueue>,
        work: &Arc<TextWork>,
    ) -> std::io::Result<Self> {
        let batch = Batch {
            decoder: Some(Arc::clone(model).decoder(threads)?),
            model: Arc::clone(model),
            queue: Arc::clone(queue),
            work: Arc::clone(work),
            threads,
            running: Vec::new(),
            suspects: VecDeque::new(),
            logits: Vec::new(),
        };
        // The kernel shows 15 characters of a thread's name.
        let thread = Builder::new().name(format!("t:{name}")).spawn(|| batch.run())?;
        Ok(Self { queue: Arc::clone(queue), thread: Some(thread) })
    }
}

impl Drop for TextWorker {
    fn drop(&mut self) {
        self.queue.items.close();
        if let Some(thread) = self.thread.take() {
            // The worker catches the panics of its work; its own would be in the log already.
            let _ = thread.join();
        }
    }
}

struct Batch {
    model: Arc<dyn Seq2SeqModel>,
    queue: Arc<TextQueue>,
    work: Arc<TextWork>,
    threads: usize,
    /// `None` after a failure, until it is needed again.
    decoder: Option<Box<dyn Decoder>>,
    running: Vec<Running>,
    /// Texts that were in a batch that failed. Each is made again, alone, so that one that the
    /// engine cannot compute fails its own request and not its neighbours'.
    suspects: VecDeque<Pending>,
    logits: Vec<f32>,
}

impl Batch {
    fn run(mut self) {
        loop {
            let mut first = None;
            if self.running.is_empty() && self.suspects.is_empty() {
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

    /// Texts that nobody waits for any more leave.
    fn drop_cancelled(&mut self) {
        self.suspects.retain(|pending| !pending.text.is_cancelled());
        let cancelled = |running: &mut Running| running.pending.text.is_cancelled();
        let left = self.running.extract_if(.., cancelled).map(|running| running.place).collect();
        self.change(Changes { left, ..Changes::default() });
    }

    /// The texts that join now, as tokens.
    fn next_to_join(&mut self, first: Option<Item>) -> Vec<Pending> {
        if self.running.is_empty()
            && let Some(suspect) = self.suspects.pop_front()
        {
            return vec![suspect];
        }
        if self.running.iter().any(|running| running.pending.suspect) {
            return Vec::new();
        }
        let mut rows: usize = self.running.iter().map(|running| running.place.rows.len()).sum();
        let here = self.running.iter().map(|running| running.pending.text.job.connection);
        let mut here: BTreeSet<ConnectionId> = here.collect();
        let (all, kept_free) = (self.queue.rows, self.queue.rows / KEPT_FREE);
        let (mut joining, mut tokens, mut bytes) = (Vec::new(), 0, 0);
        let mut next = first;
        while tokens < ADMITTED_TOKENS && bytes < ADMITTED_BYTES {
            let turn = |connection: ConnectionId, item: &Item| match rows + item.rows() {
                _ if rows == 0 => Turn::Take,
                wanted if here.contains(&connection) && wanted > all - kept_free => Turn::Pass,
                wanted if wanted > all => Turn::Wait,
                _ => Turn::Take,
            };
            let Some(item) = next.take().or_else(|| self.queue.items.take_in_turn(turn)) else {
                break;
            };
            self.work.waits.note(item.job.queued.elapsed());
            let (taken, connection) = (item.rows(), item.job.connection);
            bytes += item.len_bytes();
            if let Some(pending) = self.read(item) {
                here.insert(connection);
                rows += taken;
                tokens += pending.input.ids.len();
                joining.push(pending);
            }
        }
        joining
    }

    /// Reads a text as tokens, or fails its job.
    fn read(&self, text: Item) -> Option<Pending> {
        let config = &text.job.wish.config;
        match guarded(|| Ok(self.model.encode(text.as_str(), config.max_input_tokens)?)) {
            Ok(input) => {
                let seed = match config.search.drawing() {
                    Some(Drawing { seed: Some(seed), .. }) => seed,
                    Some(Drawing { seed: None, .. }) => RandomState::new().hash_one(text.text),
                    None => 0,
                };
                Some(Pending { text, input, seed, shown: Reading::default(), suspect: false })
            }
            Err(error) => {
                text.job.fail(error);
                None
            }
        }
    }

    /// Encodes the inputs of those who join.
    fn admit(&mut self, joining: Vec<Pending>) {
        if joining.is_empty() {
            return;
        }
        let inputs: Vec<&Sequence> = joining.iter().map(|pending| &pending.input).collect();
        let places = self.engine(|decoder| {
            let sources = decoder.admit(&inputs)?;
            let wanted = joining.iter().map(|pending| &pending.text.job.wish.config);
            let mut places: Vec<Place> =
                sources.into_iter().map(|source| Place { source, rows: Vec::new() }).collect();
            let begun = places
                .iter_mut()
                .zip(wanted)
                .try_for_each(|(place, config)| place.begin(decoder, config));
            if begun.is_err() {
                places.drain(..).for_each(|place| place.leave(decoder));
            }
            begun.map(|()| places)
        });
        match places {
            Ok(places) => {
                let tokens: usize = inputs.iter().map(|input| input.ids.len()).sum();
                self.work.input_tokens.fetch_add(tokens as u64, Ordering::Relaxed);
                for (pending, place) in joining.into_iter().zip(places) {
                    let Wish { config, sink } = &pending.text.job.wish;
                    let defaults = self.model.defaults();
                    let making = Making::new(
                        config,
                        defaults,
                        &pending.input.ids,
                        pending.seed,
                        sink.is_some(),
                    );
                    self.running.push(Running { pending, place, making });
                }
            }
            // Refused: what runs is as it was, and each of these is asked for by itself.
            Err(TextError::Compute(_)) if joining.len() > 1 => {
                joining.into_iter().for_each(|pending| self.admit(vec![pending]));
            }
            Err(error @ TextError::Compute(_)) => {
                joining.iter().for_each(|pending| pending.text.job.fail(error.clone()));
            }
            Err(error) => self.fail(error, joining),
        }
    }

    /// Computes one token more for every answer.
    fn step(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let (mut next, mut counts) = (Vec::new(), Vec::with_capacity(self.running.len()));
        for Running { place, making, .. } in &self.running {
            let rows = making.next();
            counts.push(rows.len());
            let rows = rows.into_iter().filter_map(|(row, id)| Some((*place.rows.get(row)?, id)));
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
        let mut changes = Changes::default();
        for (mut running, count) in std::mem::take(&mut self.running).into_iter().zip(counts) {
            let rows;
            (rows, rest) = rest.split_at_mut(count * width);
            match guarded(|| running.advance(&*self.model, rows)) {
                Ok(Progress::Continue) => self.running.push(running),
                Ok(Progress::Reorder(from)) => {
                    changes.reorder(&running.place.rows, from);
                    self.running.push(running);
                }
                Ok(Progress::End) => {
                    let Running { pending, place, making } = running;
                    changes.left.push(place);
                    self.answer(pending, making);
                }
                Err(error) => {
                    changes.left.push(running.place);
                    running.pending.text.job.fail(error);
                }
            }
        }
        self.logits = logits;
        self.change(changes);
    }

    fn answer(&self, pending: Pending, making: Making) {
        let Pending { text, input, shown, .. } = pending;
        match guarded(|| making.into_sequences(&|ids| Ok(self.model.decode(ids)?))) {
            Ok(mut sequences) => {
                // A stream has said it already, and cannot take anything back.
                if text.job.wish.sink.is_some()
                    && let Some(sequence) = sequences.first_mut()
                {
                    sequence.text = shown.into_shown();
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

    /// Does in the decoder what became of the texts.
    fn change(&mut self, changes: Changes) {
        if changes.left.is_empty() && changes.reordered.is_empty() {
            return;
        }
        let done = self.engine(|decoder| {
            for (rows, from) in &changes.reordered {
                decoder.reorder(rows, from)?;
            }
            changes.left.into_iter().for_each(|place| place.leave(decoder));
            Ok(())
        });
        if let Err(error) = done {
            self.fail(error, Vec::new());
        }
    }

    /// After a failure nothing that the decoder holds is of use. A text that was computed alone has
    /// failed; several are computed again, one by one.
    fn fail(&mut self, error: TextError, joining: Vec<Pending>) {
        let decoder = self.decoder.take();
        // Whatever happens to it here, it is gone.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(decoder)));
        let running = self.running.drain(..).map(|running| running.pending);
        let mut texts: Vec<Pending> = running.chain(joining).collect();
        if texts.len() > 1 {
            tracing::warn!(%error, texts = texts.len(), "a batch failed and is computed in parts");
            texts.iter_mut().for_each(|pending| pending.suspect = true);
            self.suspects.extend(texts);
        } else if let Some(pending) = texts.pop() {
            pending.text.job.fail(error);
        }
    }

    /// Asks the decoder, a fresh one after a failure.
    fn engine<T>(
        &mut self,
        ask: impl FnOnce(&mut dyn Decoder) -> Result<T, ComputeError>,
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
            Ok(ask(&mut **decoder)?)
        })
    }
}

/// What an answer takes of a message.
fn len_bytes(answer: &GeneratedText) -> usize {
    const SEQUENCE: usize = 8 + 8 + 5 + 4;
    const TEXT: usize = 8 + 4 + 1;
    let sequences = answer.sequences.iter();
    TEXT + sequences.map(|s| SEQUENCE + s.text.len() + size_of_val(&*s.ids)).sum::<usize>()
}
