//! One request's texts on their way through a model.

use crate::engine::model::{ComputeError, Sequence};
use crate::lease::ConnectionId;
use crate::segment::Row;
use crate::sync::lock;
use emberd_protocol::TextBlock;
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
    /// What to embed.
    pub(crate) texts: TextBlock,
    /// When it came.
    pub(crate) queued: Instant,
    /// Each row once, taken when its text is read.
    rows: Mutex<Vec<Option<Row>>>,
    /// Rows not yet written.
    remaining: AtomicUsize,
    cancelled: AtomicBool,
    tokens: AtomicU64,
    truncated: Mutex<Vec<u32>>,
    done: Mutex<Option<oneshot::Sender<Result<Done, JobError>>>>,
}

/// All rows are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
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

/// One text, read as tokens, and the home of its row.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Whose it is.
    pub(crate) job: Arc<Job>,
    /// The tokens.
    pub(crate) sequence: Sequence,
    /// Where the row goes.
    pub(crate) row: Row,
}

impl Job {
    /// A job over texts and a row for each.
    pub(crate) fn new(
        connection: ConnectionId,
        texts: TextBlock,
        rows: Vec<Row>,
    ) -> (Arc<Self>, Waiting) {
        debug_assert_eq!(texts.len(), rows.len(), "a row for each text");
        let (sender, done) = oneshot::channel();
        let job = Arc::new(Self {
            connection,
            queued: Instant::now(),
            remaining: AtomicUsize::new(rows.len()),
            rows: Mutex::new(rows.into_iter().map(Some).collect()),
            texts,
            cancelled: AtomicBool::new(false),
            tokens: AtomicU64::new(0),
            truncated: Mutex::new(Vec::new()),
            done: Mutex::new(Some(sender)),
        });
        (Arc::clone(&job), Waiting { job, done })
    }

    /// Whether nobody waits for it any more, or it has failed already.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Takes the rows of texts that are about to be read; none once the job is cancelled.
    pub(crate) fn take_rows(&self, texts: Range<usize>) -> Vec<Row> {
        let mut rows = lock(&self.rows);
        let wanted = rows.get_mut(texts).into_iter().flatten();
        wanted.filter_map(Option::take).collect()
    }

    /// Puts rows back whose texts, from `first` on, were not read after all.
    pub(crate) fn put_back(&self, first: usize, taken: impl Iterator<Item = Row>) {
        let mut rows = lock(&self.rows);
        // Without a place (the job was cancelled meanwhile) they are dropped.
        for (place, row) in rows.iter_mut().skip(first).zip(taken) {
            *place = Some(row);
        }
    }

    /// Notes how many tokens were read, and which texts lost their end.
    pub(crate) fn note_read(&self, tokens: usize, truncated: &[usize]) {
        self.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
        let index = |&text| u32::try_from(text).expect("a request has at most MAX_TEXTS texts");
        lock(&self.truncated).extend(truncated.iter().map(index));
    }

    /// `count` rows were written, and dropped by the caller. The last one wakes who waits.
    pub(crate) fn complete(&self, count: usize) {
        if self.remaining.fetch_sub(count, Ordering::AcqRel) > count {
            return;
        }
        let mut truncated = std::mem::take(&mut *lock(&self.truncated));
        truncated.sort_unstable();
        let done = Done { tokens: self.tokens.load(Ordering::Relaxed), truncated };
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
        lock(&self.rows).clear();
    }

    fn answer(&self, result: Result<Done, JobError>) {
        if let Some(sender) = lock(&self.done).take() {
            // Nobody may be listening: a cancelled job ends here.
            let _ = sender.send(result);
        }
    }
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
