//! Generated texts as a stream of pieces.

use crate::error::Error;
use crate::results::Piece;
use crate::sync::lock;
use emberd_protocol::{Event, Generated};
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

/// Texts, piece by piece as they are generated. Dropping it cancels the rest.
pub struct TextStream {
    /// Pieces that have arrived and were not taken yet.
    pieces: Arc<Mutex<VecDeque<Piece>>>,
    progress: GenerateProgress,
}

impl TextStream {
    /// The next piece, or `None` at the end: then [`TextStream::answer`] returns the whole response
    /// or the error. Dropping the future loses no piece.
    pub async fn next(&mut self) -> Option<Piece> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The whole response. Pieces that were not taken are dropped.
    ///
    /// # Errors
    /// As [`crate::TextModel::generate_with`].
    pub async fn answer(self) -> Result<Generated, Error> {
        match self.progress {
            GenerateProgress::Running(running) => running.await,
            GenerateProgress::Done(result) => result,
        }
    }

    /// A stream of a request that `generate` sends, and whose events it passes on.
    pub(super) fn new<F>(generate: impl FnOnce(Box<dyn FnMut(Event) + Send>) -> F) -> Self
    where
        F: Future<Output = Result<Generated, Error>> + Send + 'static,
    {
        let pieces = Arc::new(Mutex::new(VecDeque::new()));
        let arrived = Arc::clone(&pieces);
        let on_event = Box::new(move |event| lock(&arrived).extend(Piece::from_event(event)));
        let progress = GenerateProgress::Running(Box::pin(generate(on_event)));
        Self { pieces, progress }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        if let GenerateProgress::Running(running) = &mut self.progress
            && let Poll::Ready(result) = running.as_mut().poll(context)
        {
            self.progress = GenerateProgress::Done(result);
        }
        match (lock(&self.pieces).pop_front(), &self.progress) {
            (Some(piece), _) => Poll::Ready(Some(piece)),
            (None, GenerateProgress::Done(_)) => Poll::Ready(None),
            (None, GenerateProgress::Running(_)) => Poll::Pending,
        }
    }
}

impl fmt::Debug for TextStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_done = matches!(self.progress, GenerateProgress::Done(_));
        f.debug_struct("TextStream").field("is_done", &is_done).finish_non_exhaustive()
    }
}

enum GenerateProgress {
    Running(Pin<Box<dyn Future<Output = Result<Generated, Error>> + Send>>),
    Done(Result<Generated, Error>),
}
