//! The texts that wait for one model, with the parameters of their requests.

use crate::batching::fair_queue::FairQueue;
use crate::batching::generation::config::GenerationConfig;
use crate::batching::queue::QueueError;
use crate::batching::text_job::{Job, JobHandle, JobText, TextError};
use crate::ground::connection_id::ConnectionId;
use emberd_protocol::{Event, Generated, GeneratedText, TextBlock};
use std::fmt;

/// Receives the pieces of streamed texts as they are generated. The worker calls it: it must not
/// block.
pub type PieceSink = Box<dyn Fn(Event) + Send + Sync>;

/// One request's texts.
pub struct TextJob {
    /// The connection that sent the request: connections share a model fairly.
    pub connection: ConnectionId,
    /// The texts.
    pub texts: TextBlock,
    /// How their answers are generated.
    pub config: GenerationConfig,
    /// Receives the pieces; `Some` for a config that was resolved as a stream.
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

/// What a request asks for.
pub(super) struct GenerateParams {
    pub(super) config: GenerationConfig,
    pub(super) sink: Option<PieceSink>,
}

/// A text that waits.
pub(super) type QueuedText = JobText<GenerateParams, GeneratedText>;

/// The texts that wait for one model.
pub struct TextQueue {
    pub(super) items: FairQueue<QueuedText>,
    pub(super) rows: usize,
}

/// The requester's end of a job. Dropping it cancels the texts that are not answered, at the next
/// step.
pub struct TextHandle {
    job: JobHandle<GenerateParams, GeneratedText>,
}

impl TextQueue {
    /// An empty queue for a batch of `rows` sequences and beams, as in the
    /// [`GenerationLimits`](crate::batching::generation::GenerationLimits) that the jobs' configs
    /// were resolved with.
    #[must_use]
    pub fn new(rows: usize) -> Self {
        Self { items: FairQueue::default(), rows }
    }

    /// Adds a job.
    ///
    /// # Errors
    /// When too much waits already, or the queue is closed.
    pub fn push(&self, job: TextJob) -> Result<TextHandle, QueueError> {
        let TextJob { connection, texts, config, sink } = job;
        let job = Job::push(&self.items, connection, texts, GenerateParams { config, sink })?;
        Ok(TextHandle { job })
    }

    /// How many texts wait.
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

impl TextHandle {
    /// Waits for the answers.
    ///
    /// # Errors
    /// When a text failed; the first failure is reported.
    pub async fn done(self) -> Result<Generated, TextError> {
        Ok(Generated { texts: self.job.done().await? })
    }
}

impl fmt::Debug for TextHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextHandle").finish_non_exhaustive()
    }
}

impl QueuedText {
    /// Rows of the batch that it takes: its sequences or beams.
    pub(super) fn rows(&self) -> usize {
        self.job.params.config.rows()
    }
}
