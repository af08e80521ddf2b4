//! One request's texts on their way through a model that makes texts, and who waits for them.

use crate::batching::fair_queue::{FairQueue, Queued};
use crate::batching::queue::QueueError;
use crate::ground::connection_id::ConnectionId;
use crate::ground::sync::lock;
use emberd_engine::ComputeError;
use emberd_protocol::{MAX_BODY_BYTES, TextBlock};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::oneshot;

/// What an answer may take, so that all of them fit one message with what stands around them.
const MAX_ANSWER_BYTES: usize = MAX_BODY_BYTES - 4096;

/// Why a request ended without its texts.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The engine failed.
    #[error("the model failed")]
    Compute(#[source] Arc<ComputeError>),
    /// The engine panicked.
    #[error("a worker panicked while it computed")]
    Panicked,
    /// The worker could not begin.
    #[error("the system gave no threads to compute with")]
    Threads(#[source] Arc<std::io::Error>),
    /// There was nothing to choose from.
    #[error(
        "no token can come next: the rules of the request leave none, or the model's numbers overflowed"
    )]
    NoToken,
    /// The answers would not fit a message.
    #[error(
        "the answers take more than the {limit} bytes of a message: send fewer texts at a time, or ask for less of each"
    )]
    TooLarge {
        /// What fits.
        limit: usize,
    },
    /// There is nothing to fill.
    #[error("text {text} holds no mask in what the model reads of it: write it as {mask}")]
    NoMask {
        /// Which of the request.
        text: usize,
        /// How it is spelled.
        mask: String,
    },
    /// No candidate is wanted.
    #[error("top_k is 0: it must be at least 1")]
    NoCandidates,
    /// So many candidates there are not.
    #[error("top_k is {wanted}: this model knows {found} tokens")]
    FewCandidates {
        /// What was asked for.
        wanted: u32,
        /// What there is.
        found: usize,
    },
}

impl From<ComputeError> for TextError {
    fn from(error: ComputeError) -> Self {
        Self::Compute(Arc::new(error))
    }
}

/// A request's texts, what is wanted of them (`W`), and the answers so far (`A`).
pub(crate) struct Job<W, A> {
    /// Whose it is.
    pub(crate) connection: ConnectionId,
    /// The texts.
    pub(crate) texts: TextBlock,
    /// What is wanted of them.
    pub(crate) wish: W,
    /// When it came.
    pub(crate) queued: Instant,
    cancelled: AtomicBool,
    answers: Mutex<Answers<A>>,
}

struct Answers<A> {
    of: Vec<Option<A>>,
    missing: usize,
    bytes: usize,
    done: Option<oneshot::Sender<Result<Vec<A>, TextError>>>,
}

/// One text of a job.
pub(crate) struct JobText<W, A> {
    /// Whose.
    pub(crate) job: Arc<Job<W, A>>,
    /// Which.
    pub(crate) text: usize,
}

/// The waiting end of a job. Dropping it cancels what has not been made.
pub(crate) struct Waiting<W, A> {
    job: Arc<Job<W, A>>,
    done: oneshot::Receiver<Result<Vec<A>, TextError>>,
}

impl<W, A> Job<W, A> {
    /// Puts a request's texts into a queue.
    ///
    /// # Errors
    /// When too much waits already, or the model is going away.
    pub(crate) fn push(
        queue: &FairQueue<JobText<W, A>>,
        connection: ConnectionId,
        texts: TextBlock,
        wish: W,
    ) -> Result<Waiting<W, A>, QueueError> {
        let (sender, done) = oneshot::channel();
        let count = texts.len();
        let answers = Answers {
            of: (0..count).map(|_| None).collect(),
            missing: count,
            bytes: 0,
            done: Some(sender),
        };
        let job = Arc::new(Self {
            connection,
            texts,
            wish,
            queued: Instant::now(),
            cancelled: AtomicBool::new(false),
            answers: Mutex::new(answers),
        });
        lock(&job.answers).tell_if_whole();
        let items = (0..count).map(|text| JobText { job: Arc::clone(&job), text }).collect();
        queue.push(connection, items)?;
        Ok(Waiting { job, done })
    }

    /// Whether nobody waits for it any more, or it has failed already.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Ends the job with an error; the first one counts.
    pub(crate) fn fail(&self, error: TextError) {
        self.cancelled.store(true, Ordering::Relaxed);
        lock(&self.answers).tell(Err(error));
    }
}

impl<W, A> JobText<W, A> {
    /// The text itself.
    pub(crate) fn as_str(&self) -> &str {
        self.job.texts.get(self.text).unwrap_or_default()
    }

    /// Its position as answers tell it.
    pub(crate) fn position(&self) -> u32 {
        u32::try_from(self.text).expect("a request has at most MAX_TEXTS texts")
    }

    /// Gives the text its answer, which takes so many bytes of a message. The last one wakes who
    /// waits.
    pub(crate) fn answer(self, answer: A, len_bytes: usize) {
        let mut answers = lock(&self.job.answers);
        answers.bytes += len_bytes;
        if answers.bytes > MAX_ANSWER_BYTES {
            drop(answers);
            return self.job.fail(TextError::TooLarge { limit: MAX_BODY_BYTES });
        }
        if let Some(place) = answers.of.get_mut(self.text)
            && place.replace(answer).is_none()
        {
            answers.missing -= 1;
        }
        answers.tell_if_whole();
    }
}

impl<A> Answers<A> {
    fn tell_if_whole(&mut self) {
        if self.missing == 0 {
            let all = std::mem::take(&mut self.of).into_iter().flatten().collect();
            self.tell(Ok(all));
        }
    }

    fn tell(&mut self, result: Result<Vec<A>, TextError>) {
        if let Some(sender) = self.done.take() {
            // Nobody may be listening: a cancelled job ends here.
            let _ = sender.send(result);
        }
    }
}

impl<W, A> Queued for JobText<W, A> {
    fn len_bytes(&self) -> usize {
        self.as_str().len()
    }

    fn is_cancelled(&self) -> bool {
        self.job.is_cancelled()
    }
}

impl<W, A> Waiting<W, A> {
    /// Waits for the answers, in the order of the texts.
    ///
    /// # Errors
    /// When the work failed; the first failure of a text is that of all.
    pub(crate) async fn done(mut self) -> Result<Vec<A>, TextError> {
        (&mut self.done).await.unwrap_or(Err(TextError::Panicked))
    }
}

impl<W, A> Drop for Waiting<W, A> {
    fn drop(&mut self) {
        self.job.cancelled.store(true, Ordering::Relaxed);
    }
}

/// A panic costs the texts that it happened to, not the worker.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, TextError>) -> Result<T, TextError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(TextError::Panicked))
}
