//! One request's texts on their way through a model.

use crate::batching::row_shape::RowShape;
use crate::cache::Ticket;
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

/// Texts, where their rows go, and who waits for them.
#[derive(Debug)]
pub(crate) struct Job {
    /// For fairness between clients.
    pub(crate) connection: ConnectionId,
    /// The request's texts, those included whose rows were found.
    pub(crate) texts: TextBlock,
    reading: Reading,
    /// When it came.
    pub(crate) queued: Instant,
    /// What to embed: each text's home once, taken when it is read.
    homes: Mutex<Vec<Option<Home>>>,
    len: usize,
    /// Homes not yet filled.
    remaining: AtomicUsize,
    cancelled: AtomicBool,
    computed: AtomicU64,
    tokens: AtomicU64,
    truncated: Mutex<Vec<u32>>,
    done: Mutex<Option<oneshot::Sender<Result<Done, JobError>>>>,
}

/// How a request's texts are read.
#[derive(Debug)]
enum Reading {
    /// Each for itself, behind a prompt; `None`: whatever the model puts there.
    Single(Option<String>),
    /// As pairs.
    Pairs(Pairing),
}

/// All rows are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    /// Texts that were computed for it. The rest came from the cache, from others who wanted them
    /// too, or stood in the request twice.
    pub(crate) computed: u64,
    /// Tokens that were computed.
    pub(crate) tokens: u64,
    /// Positions of the texts that lost their end, ascending.
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

/// The waiting end of a job. Dropping it cancels what has not been computed.
#[derive(Debug)]
pub(crate) struct Waiting {
    job: Arc<Job>,
    done: oneshot::Receiver<Result<Done, JobError>>,
}

/// A text that is to be embedded, and where its row goes.
#[derive(Debug)]
pub(crate) struct Home {
    /// Its position in the request.
    pub(crate) text: usize,
    /// Where the row goes.
    pub(crate) row: Row,
    /// What of the model's row goes there.
    pub(crate) shape: RowShape,
    /// The same text at other positions: the row is copied there.
    pub(crate) more: Vec<(usize, Row)>,
    /// The wish for the row, where it may be cached or shared.
    pub(crate) ticket: Option<Ticket>,
}

/// One text, read as tokens, and the home of its row.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Whose it is.
    pub(crate) job: Arc<Job>,
    /// The tokens.
    pub(crate) sequence: Sequence,
    /// Where the row goes.
    pub(crate) home: Home,
}

impl Home {
    /// A text's position as answers tell it.
    pub(crate) fn position(text: usize) -> u32 {
        u32::try_from(text).expect("a request has at most MAX_TEXTS texts")
    }

    /// Every position of the text.
    pub(crate) fn positions(&self) -> impl Iterator<Item = u32> {
        let more = self.more.iter().map(|(text, _)| *text);
        std::iter::once(self.text).chain(more).map(Self::position)
    }

    /// Writes a row as the model made it.
    pub(crate) fn fill(&mut self, values: &[f32]) {
        self.shape.write(values, self.row.as_mut_slice());
        self.spread();
    }

    /// Copies the row to the other positions.
    pub(crate) fn spread(&mut self) {
        let values = self.row.as_mut_slice();
        self.more.iter_mut().for_each(|(_, row)| row.as_mut_slice().copy_from_slice(values));
    }

    /// Fills it if its row was computed meanwhile, and answers whether the text was cut.
    pub(crate) fn look_again(&mut self) -> Option<bool> {
        let found = self.ticket.as_ref()?.look_again(self.shape.model)?;
        self.fill(&found.values);
        Some(found.truncated)
    }
}

impl Job {
    /// A job over texts and a row for each.
    pub(crate) fn new(
        connection: ConnectionId,
        prompt: Option<String>,
        texts: TextBlock,
        rows: Vec<Row>,
        shape: RowShape,
    ) -> (Arc<Self>, Waiting) {
        debug_assert_eq!(texts.len(), rows.len(), "a row for each text");
        let homes = whole_homes(rows, shape);
        Self::of_homes(connection, prompt, texts, homes, Vec::new())
    }

    /// A job over pairs of texts and a row for each pair.
    pub(crate) fn of_pairs(
        connection: ConnectionId,
        texts: TextBlock,
        pairs: Pairing,
        rows: Vec<Row>,
        shape: RowShape,
    ) -> (Arc<Self>, Waiting) {
        let homes = whole_homes(rows, shape);
        Self::start(connection, texts, Reading::Pairs(pairs), homes, Vec::new())
    }

    /// A job over some of a request's texts. `truncated` are positions that lost their end and
    /// are not among these.
    pub(crate) fn of_homes(
        connection: ConnectionId,
        prompt: Option<String>,
        texts: TextBlock,
        homes: Vec<Home>,
        truncated: Vec<u32>,
    ) -> (Arc<Self>, Waiting) {
        Self::start(connection, texts, Reading::Single(prompt), homes, truncated)
    }

    fn start(
        connection: ConnectionId,
        texts: TextBlock,
        reading: Reading,
        homes: Vec<Home>,
        truncated: Vec<u32>,
    ) -> (Arc<Self>, Waiting) {
        let (sender, done) = oneshot::channel();
        let job = Arc::new(Self {
            connection,
            queued: Instant::now(),
            len: homes.len(),
            remaining: AtomicUsize::new(homes.len()),
            homes: Mutex::new(homes.into_iter().map(Some).collect()),
            texts,
            reading,
            cancelled: AtomicBool::new(false),
            computed: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
            truncated: Mutex::new(truncated),
            done: Mutex::new(Some(sender)),
        });
        if job.len == 0 {
            job.complete(0, None);
        }
        (Arc::clone(&job), Waiting { job, done })
    }

    /// Reads the text or the pair at a position as tokens.
    pub(crate) fn encode(
        &self,
        model: &dyn EmbeddingModel,
        position: usize,
    ) -> Result<Sequence, ComputeError> {
        let text = |at| self.texts.get(at).unwrap_or_default();
        match &self.reading {
            Reading::Single(None) => model.encode(text(position)),
            Reading::Single(Some(prompt)) => model.encode_prompted(prompt, text(position)),
            Reading::Pairs(Pairing::QueryFirst) => model.encode_pair(text(0), text(position + 1)),
            Reading::Pairs(Pairing::Adjacent) => {
                model.encode_pair(text(2 * position), text(2 * position + 1))
            }
        }
    }

    /// Texts that it computes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody waits for it any more, or it has failed already.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Takes the homes of texts that are about to be read; none once the job is cancelled.
    pub(crate) fn take_homes(&self, texts: Range<usize>) -> Vec<Home> {
        let mut homes = lock(&self.homes);
        let wanted = homes.get_mut(texts).into_iter().flatten();
        wanted.filter_map(Option::take).collect()
    }

    /// Puts homes back whose texts, from `first` on, were not read after all.
    pub(crate) fn put_back(&self, first: usize, taken: impl Iterator<Item = Home>) {
        let mut homes = lock(&self.homes);
        // Without a place (the job was cancelled meanwhile) they are dropped.
        for (place, home) in homes.iter_mut().skip(first).zip(taken) {
            *place = Some(home);
        }
    }

    /// Notes which texts lost their end.
    pub(crate) fn note_truncated(&self, texts: Vec<u32>) {
        lock(&self.truncated).extend(texts);
    }

    /// `count` homes were filled, and dropped by the caller; by computing so many tokens, if they
    /// were computed for it. The last one wakes who waits.
    pub(crate) fn complete(&self, count: usize, computed_tokens: Option<usize>) {
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

    /// Ends the job with an error; the first one counts.
    pub(crate) fn fail(&self, error: JobError) {
        self.cancel();
        self.answer(Err(error));
    }

    /// Gives the rows that nobody took back to their home, and marks the rest as unwanted.
    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        // Dropped without the lock: tickets have one of their own.
        let homes = std::mem::take(&mut *lock(&self.homes));
        drop(homes);
    }

    fn answer(&self, result: Result<Done, JobError>) {
        if let Some(sender) = lock(&self.done).take() {
            // Nobody may be listening: a cancelled job ends here.
            let _ = sender.send(result);
        }
    }
}

/// A home for each row, which is used as the model makes it.
fn whole_homes(rows: Vec<Row>, shape: RowShape) -> Vec<Home> {
    let home = |(text, row)| Home { text, row, shape, more: Vec::new(), ticket: None };
    rows.into_iter().enumerate().map(home).collect()
}

impl Waiting {
    /// Waits for the rows.
    ///
    /// # Errors
    /// When the engine failed, or the model was taken away ([`JobError::Panicked`] never comes
    /// from that: the queue fails its jobs itself).
    pub(crate) async fn done(mut self) -> Result<Done, JobError> {
        (&mut self.done).await.unwrap_or(Err(JobError::Panicked))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.job.cancel();
    }
}
