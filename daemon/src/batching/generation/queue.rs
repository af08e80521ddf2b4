//! The texts that wait for one model, and what is wanted of them.

use crate::batching::fair_queue::FairQueue;
use crate::batching::generation::config::GenerationConfig;
use crate::batching::queue::QueueError;
use crate::batching::text_job::{Job, JobText, TextError, Waiting};
use crate::ground::connection_id::ConnectionId;
use emberd_protocol::{Event, Generated, GeneratedText, TextBlock};
use std::fmt;

/// Where the pieces of streamed texts go, as they are made. Called by the worker: it must not wait.
pub type PieceSink = Box<dyn Fn(Event) + Send + Sync>;

/// One request's texts.
pub struct TextJob {
    /// For fairness between clients.
    pub connection: ConnectionId,
    /// The texts.
    pub texts: TextBlock,
    /// How answers are made of them.
    pub config: GenerationConfig,
    /// Who gets the pieces; given for a config that was resolved as a stream.
    pub sink: Option<PieceSink>,
}

impl fmt::Debug for TextJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextJob")
            .field("connection", &self.connection)
            .field("texts", &self.texts)
            .field("config", &self.config)
            .field("streams", &self.sink.is_some())
            .finish()
    }
}

/// What is wanted of the texts of a job.
pub(super) struct Wish {
    pub(super) config: GenerationConfig,
    pub(super) sink: Option<PieceSink>,
}

/// A text that waits.
pub(super) type Item = JobText<Wish, GeneratedText>;

/// The texts that wait for one model.
pub struct TextQueue {
    pub(super) items: FairQueue<Item>,
    pub(super) rows: usize,
}

/// The waiting end of a job. Dropping it cancels what has not been made: at the next step.
pub struct TextWaiting {
    waiting: Waiting<Wish, GeneratedText>,
}

impl TextQueue {
    /// An empty queue for a batch of so many answers and beams: the `rows` of the
    /// [`GenerationLimits`](crate::batching::generation::GenerationLimits) that the jobs' configs were resolved with.
    #[must_use]
    pub fn new(rows: usize) -> Self {
        Self { items: FairQueue::default(), rows }
    }

    /// Adds a job.
    ///
    /// # Errors
    /// When too much waits already, or the model is going away.
    pub fn push(&self, job: TextJob) -> Result<TextWaiting, QueueError> {
        let TextJob { connection, texts, config, sink } = job;
        let waiting = Job::push(&self.items, connection, texts, Wish { config, sink })?;
        Ok(TextWaiting { waiting })
    }

    /// Texts that wait.
    #[must_use]
    pub fn queued_texts(&self) -> usize {
        self.items.len()
    }
}

impl fmt::Debug for TextQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextQueue").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl TextWaiting {
    /// Waits for the answers.
    ///
    /// # Errors
    /// When the work failed.
    pub async fn done(self) -> Result<Generated, TextError> {
        Ok(Generated { texts: self.waiting.done().await? })
    }
}

impl fmt::Debug for TextWaiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextWaiting").finish_non_exhaustive()
    }
}

impl Item {
    /// Answers and beams that it takes.
    pub(super) fn rows(&self) -> usize {
        self.job.wish.config.rows()
    }
}
