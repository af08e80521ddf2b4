//! One request's texts, each of which gets an answer of its own: a generated text, or filled masks.

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

/// Bytes that the answers of a request may take, so that they fit one message with its other fields.
const MAX_ANSWER_BYTES: usize = MAX_BODY_BYTES - 4096;

/// Why a request ended without its answers.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The engine failed.
    #[error("the model failed")]
    Compute(#[source] Arc<ComputeError>),
    /// The engine panicked.
    #[error("a worker panicked while it computed")]
    Panicked,
    /// The worker could not start.
    #[error("the system could not start threads for the computation")]
    Threads(#[source] Arc<std::io::Error>),
    /// Every token was excluded.
    #[error(
        "no token can come next: the options of the request exclude all of them, or the model's numbers overflowed"
    )]
    NoToken,
    /// The answers would not fit a message.
    #[error(
        "the answers take more than the {limit} bytes of a message: send fewer texts at a time, or ask for shorter answers"
    )]
    TooLarge {
        /// Bytes that fit.
        limit: usize,
    },
    /// A text without a mask.
    #[error("text {text} has no mask within the tokens that the model reads: write it as {mask}")]
    NoMask {
        /// Its position in the request.
        text: usize,
        /// How the model spells a mask.
        mask: String,
    },
    /// No candidate was requested.
    #[error("top_k is 0: it must be at least 1")]
    NoCandidates,
    /// More candidates were requested than there are.
    #[error("top_k is {wanted}: this model has only {found} tokens to choose from")]
    FewCandidates {
        /// Candidates that were requested.
        wanted: u32,
        /// Candidates that there are.
        found: usize,
    },
}

impl From<ComputeError> for TextError {
    fn from(error: ComputeError) -> Self {
        Self::Compute(Arc::new(error))
    }
}

/// A request's texts, its parameters (`P`), and the answers so far (`A`).
pub(crate) struct Job<P, A> {
    /// The connection that sent the request.
    pub(crate) connection: ConnectionId,
    /// The texts.
    pub(crate) texts: TextBlock,
    /// What the request asks for.
    pub(crate) params: P,
    /// When the request arrived.
    pub(crate) queued: Instant,
    cancelled: AtomicBool,
    answers: Mutex<Answers<A>>,
}

/// One text of a job.
pub(crate) struct JobText<P, A> {
    /// The job that it belongs to.
    pub(crate) job: Arc<Job<P, A>>,
    /// Its position in the request.
    pub(crate) text: usize,
}

/// The requester's end of a job. Dropping it cancels what is still to be computed.
pub(crate) struct JobHandle<P, A> {
    job: Arc<Job<P, A>>,
    done: oneshot::Receiver<Result<Vec<A>, TextError>>,
}

impl<P, A> Job<P, A> {
    /// Puts a request's texts into a queue.
    ///
    /// # Errors
    /// When too much waits already, or the queue is closed.
    pub(crate) fn push(
        queue: &FairQueue<JobText<P, A>>,
        connection: ConnectionId,
        texts: TextBlock,
        params: P,
    ) -> Result<JobHandle<P, A>, QueueError> {
        let (sender, done) = oneshot::channel();
        let count = texts.len();
        let answers = Answers {
            all: (0..count).map(|_| None).collect(),
            missing: count,
            bytes: 0,
            done: Some(sender),
        };
        let job = Arc::new(Self {
            connection,
            texts,
            params,
            queued: Instant::now(),
            cancelled: AtomicBool::new(false),
            answers: Mutex::new(answers),
        });
        lock(&job.answers).send_if_complete();
        let items = (0..count).map(|text| JobText { job: Arc::clone(&job), text }).collect();
        queue.push(connection, items)?;
        Ok(JobHandle { job, done })
    }

    /// Whether its requester is gone, or it has failed already.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Ends the job with an error. Only the first error is reported.
    pub(crate) fn fail(&self, error: TextError) {
        self.cancelled.store(true, Ordering::Relaxed);
        lock(&self.answers).send(Err(error));
    }
}

impl<P, A> JobText<P, A> {
    /// The text itself.
    pub(crate) fn as_str(&self) -> &str {
        self.job.texts.get(self.text).unwrap_or_default()
    }

    /// Its position as messages carry it.
    pub(crate) fn position(&self) -> u32 {
        u32::try_from(self.text).expect("a request has at most MAX_TEXTS texts")
    }

    /// Sets the answer of the text, which takes `len_bytes` of a message. The last answer completes
    /// the job.
    pub(crate) fn answer(self, answer: A, len_bytes: usize) {
        let mut answers = lock(&self.job.answers);
        answers.bytes += len_bytes;
        if answers.bytes > MAX_ANSWER_BYTES {
            drop(answers);
            return self.job.fail(TextError::TooLarge { limit: MAX_BODY_BYTES });
        }
        if let Some(own) = answers.all.get_mut(self.text)
            && own.replace(answer).is_none()
        {
            answers.missing -= 1;
        }
        answers.send_if_complete();
    }
}

impl<P, A> Queued for JobText<P, A> {
    fn len_bytes(&self) -> usize {
        self.as_str().len()
    }

    fn is_cancelled(&self) -> bool {
        self.job.is_cancelled()
    }
}

impl<P, A> JobHandle<P, A> {
    /// Waits for the answers, in the order of the texts.
    ///
    /// # Errors
    /// When a text failed; the first failure is reported.
    pub(crate) async fn done(mut self) -> Result<Vec<A>, TextError> {
        (&mut self.done).await.unwrap_or(Err(TextError::Panicked))
    }
}

impl<P, A> Drop for JobHandle<P, A> {
    fn drop(&mut self) {
        self.job.cancelled.store(true, Ordering::Relaxed);
    }
}

/// A panic costs the texts that caused it, not the worker.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, TextError>) -> Result<T, TextError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(TextError::Panicked))
}

struct Answers<A> {
    /// By position of the text.
    all: Vec<Option<A>>,
    missing: usize,
    bytes: usize,
    done: Option<oneshot::Sender<Result<Vec<A>, TextError>>>,
}

impl<A> Answers<A> {
    fn send_if_complete(&mut self) {
        if self.missing == 0 {
            let all = std::mem::take(&mut self.all).into_iter().flatten().collect();
            self.send(Ok(all));
        }
    }

    fn send(&mut self, result: Result<Vec<A>, TextError>) {
        if let Some(sender) = self.done.take() {
            // Nobody receives the answers of a cancelled job.
            let _ = sender.send(result);
        }
    }
}
