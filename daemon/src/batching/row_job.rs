//! The job of one request: its texts become rows of embeddings, or scores of pairs.

use crate::batching::row_shape::RowShape;
use crate::batching::single_flight::{SingleFlight, Ticket};
use crate::batching::text_input::TextInput;
use crate::ground::connection_id::ConnectionId;
use crate::ground::sync::lock;
use crate::segment::Row;
use emberd_engine::{ComputeError, EmbeddingModel, Sequence};
use emberd_protocol::{Pairing, TextBlock};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::oneshot;

/// The texts of one request, and the rows that they are computed into.
#[derive(Debug)]
pub(crate) struct RowJob {
    /// The connection that sent the request: connections share a model fairly.
    pub(crate) connection: ConnectionId,
    /// All texts of the request, including those whose rows were in the cache.
    pub(crate) texts: TextBlock,
    input: TextInput,
    /// When the request arrived.
    pub(crate) queued: Instant,
    /// One for each input to compute; a worker takes it when it tokenizes the input.
    targets: Mutex<Vec<Option<RowTarget>>>,
    len: usize,
    /// Targets that are not filled yet.
    remaining: AtomicUsize,
    cancelled: AtomicBool,
    computed: AtomicU64,
    tokens: AtomicU64,
    truncated: Mutex<Vec<u32>>,
    done: Mutex<Option<oneshot::Sender<Result<Done, JobError>>>>,
}

/// The requester's end of a job. Dropping it cancels what has not been computed.
#[derive(Debug)]
pub(crate) struct RowJobHandle {
    job: Arc<RowJob>,
    done: oneshot::Receiver<Result<Done, JobError>>,
}

/// The report of a job whose rows are all written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    /// Inputs that were computed for this job. The other rows came from the cache or from another
    /// request that wanted the same text, or the text occurred twice.
    pub(crate) computed: u64,
    /// Tokens that were computed.
    pub(crate) tokens: u64,
    /// Positions of the texts that were truncated, ascending.
    pub(crate) truncated: Vec<u32>,
}

/// Why a job ended without its rows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum JobError {
    /// The engine failed.
    #[error(transparent)]
    Compute(#[from] ComputeError),
    /// The engine panicked.
    #[error("a worker panicked while it computed")]
    Panicked,
}

/// An input to compute, and the memory that its row goes to.
#[derive(Debug)]
pub(crate) struct RowTarget {
    /// The position of the input in the request.
    pub(crate) text: usize,
    /// The memory for the row.
    pub(crate) row: Row,
    /// How the row of the model becomes this one.
    pub(crate) shape: RowShape,
    /// Other positions with the same text: the row is copied to them.
    pub(crate) more: Vec<(usize, Row)>,
    /// The row's place in the single flight. `None` if it is neither cached nor shared.
    pub(crate) ticket: Option<Ticket<TokenizedText>>,
}

/// One tokenized input of a job, and the target of its row.
#[derive(Debug)]
pub(crate) struct TokenizedText {
    /// The job that it belongs to.
    pub(crate) job: Arc<RowJob>,
    /// The tokens.
    pub(crate) sequence: Sequence,
    /// The memory for its row.
    pub(crate) target: RowTarget,
}

/// Texts that several requests may want at the same time; each is computed once.
pub(crate) type RowFlights = SingleFlight<TokenizedText>;

impl RowJob {
    /// A job that computes a row for each text. `prompt`: see [`TextInput::Single`].
    pub(crate) fn new(
        connection: ConnectionId,
        prompt: Option<String>,
        texts: TextBlock,
        rows: Vec<Row>,
        shape: RowShape,
    ) -> (Arc<Self>, RowJobHandle) {
        debug_assert_eq!(texts.len(), rows.len(), "a row for each text");
        let targets = targets(rows, shape);
        Self::of_targets(connection, prompt, texts, targets, Vec::new())
    }

    /// A job that computes a row for each pair of texts.
    pub(crate) fn of_pairs(
        connection: ConnectionId,
        texts: TextBlock,
        pairs: Pairing,
        rows: Vec<Row>,
        shape: RowShape,
    ) -> (Arc<Self>, RowJobHandle) {
        let targets = targets(rows, shape);
        Self::start(connection, texts, TextInput::Pairs(pairs), targets, Vec::new())
    }

    /// A job that computes only the texts with a target. `truncated` holds the positions of the
    /// other texts that were truncated.
    pub(crate) fn of_targets(
        connection: ConnectionId,
        prompt: Option<String>,
        texts: TextBlock,
        targets: Vec<RowTarget>,
        truncated: Vec<u32>,
    ) -> (Arc<Self>, RowJobHandle) {
        Self::start(connection, texts, TextInput::Single(prompt), targets, truncated)
    }

    /// Tokenizes the input at a position of the request.
    pub(crate) fn tokenize(
        &self,
        model: &dyn EmbeddingModel,
        position: usize,
    ) -> Result<Sequence, ComputeError> {
        self.input.tokenize(model, &self.texts, position)
    }

    /// How many inputs the job computes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether its requester is gone, or it has failed already.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Takes the targets of inputs that are about to be tokenized; none once the job is cancelled.
    pub(super) fn take_targets(&self, texts: Range<usize>) -> Vec<RowTarget> {
        let mut targets = lock(&self.targets);
        let wanted = targets.get_mut(texts).into_iter().flatten();
        wanted.filter_map(Option::take).collect()
    }

    /// Returns the targets of inputs, from `first` on, that were taken and not tokenized.
    pub(super) fn put_back(&self, first: usize, taken: impl Iterator<Item = RowTarget>) {
        let mut targets = lock(&self.targets);
        // If the job was cancelled in the meantime the list is empty, and the targets are dropped.
        for (target, returned) in targets.iter_mut().skip(first).zip(taken) {
            *target = Some(returned);
        }
    }

    /// Notes positions of texts that were truncated.
    pub(super) fn note_truncated(&self, texts: Vec<u32>) {
        lock(&self.truncated).extend(texts);
    }

    /// Counts `count` targets as filled, which the caller has dropped. `computed_tokens` is given
    /// if they were computed for this job. The last target completes the job.
    pub(super) fn complete(&self, count: usize, computed_tokens: Option<usize>) {
        if let Some(tokens) = computed_tokens {
            self.computed.fetch_add(count as u64, Ordering::Relaxed);
            self.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
        }
        if self.remaining.fetch_sub(count, Ordering::AcqRel) > count {
            return;
        }
        let mut truncated = std::mem::take(&mut *lock(&self.truncated));
        truncated.sort_unstable();
        let done = Done {
            computed: self.computed.load(Ordering::Relaxed),
            tokens: self.tokens.load(Ordering::Relaxed),
            truncated,
        };
        self.answer(Ok(done));
    }

    /// Ends the job with an error. Only the first error is reported.
    pub(super) fn fail(&self, error: JobError) {
        self.cancel();
        self.answer(Err(error));
    }

    fn start(
        connection: ConnectionId,
        texts: TextBlock,
        input: TextInput,
        targets: Vec<RowTarget>,
        truncated: Vec<u32>,
    ) -> (Arc<Self>, RowJobHandle) {
        let (sender, done) = oneshot::channel();
        let job = Arc::new(Self {
            connection,
            queued: Instant::now(),
            len: targets.len(),
            remaining: AtomicUsize::new(targets.len()),
            targets: Mutex::new(targets.into_iter().map(Some).collect()),
            texts,
            input,
            cancelled: AtomicBool::new(false),
            computed: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
            truncated: Mutex::new(truncated),
            done: Mutex::new(Some(sender)),
        });
        if job.len == 0 {
            job.complete(0, None);
        }
        (Arc::clone(&job), RowJobHandle { job, done })
    }

    /// Drops the targets that no worker has taken, and marks the others as unwanted.
    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        // Dropped outside the lock: a ticket takes a lock of its own.
        let targets = std::mem::take(&mut *lock(&self.targets));
        drop(targets);
    }

    fn answer(&self, result: Result<Done, JobError>) {
        if let Some(sender) = lock(&self.done).take() {
            // Nobody receives the answer of a cancelled job.
            let _ = sender.send(result);
        }
    }
}

impl RowJobHandle {
    /// Waits until every row is written.
    ///
    /// # Errors
    /// When the engine failed or panicked.
    pub(crate) async fn done(mut self) -> Result<Done, JobError> {
        (&mut self.done).await.unwrap_or(Err(JobError::Panicked))
    }
}

impl Drop for RowJobHandle {
    fn drop(&mut self) {
        self.job.cancel();
    }
}

impl RowTarget {
    /// A text's position as messages carry it.
    pub(crate) fn position(text: usize) -> u32 {
        u32::try_from(text).expect("a request has at most MAX_TEXTS texts")
    }

    /// Every position of the text.
    pub(super) fn positions(&self) -> impl Iterator<Item = u32> {
        let more = self.more.iter().map(|(text, _)| *text);
        std::iter::once(self.text).chain(more).map(Self::position)
    }

    /// Writes a whole row of the model, in this target's shape, to every position.
    pub(super) fn fill(&mut self, values: &[f32]) {
        self.shape.write(values, self.row.as_mut_slice());
        self.copy_to_duplicates();
    }

    /// Copies the row to the other positions of its text.
    pub(super) fn copy_to_duplicates(&mut self) {
        let values = self.row.as_mut_slice();
        self.more.iter_mut().for_each(|(_, row)| row.as_mut_slice().copy_from_slice(values));
    }

    /// Fills the target if its row has been computed in the meantime. `Some` if it has: whether the text
    /// was truncated.
    pub(super) fn fill_if_computed(&mut self) -> Option<bool> {
        let found = self.ticket.as_ref()?.computed_meanwhile(self.shape.model)?;
        self.fill(&found.values);
        Some(found.truncated)
    }
}

impl TokenizedText {
    /// Tokens that it uses of a batch's budget; at least one.
    pub(super) fn cost(&self) -> usize {
        self.sequence.ids.len().max(1)
    }
}

/// A target for each row, as the model makes it.
fn targets(rows: Vec<Row>, shape: RowShape) -> Vec<RowTarget> {
    let target = |(text, row)| RowTarget { text, row, shape, more: Vec::new(), ticket: None };
    rows.into_iter().enumerate().map(target).collect()
}
