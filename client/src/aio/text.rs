//! A leased model that makes texts, or fills masks in them.

use super::client::Client;
use super::lease::Lease;
use crate::error::Error;
use crate::lock;
use crate::question::{Question, model_id};
use crate::text::{Piece, UNAIMED};
use emberd_protocol::{
    Event, GenerateOptions, Generated, MasksFilled, ModelInfo, ModelKind, Target,
};
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

/// A lease on a model of type `text2text`; as [`crate::TextModel`]. Clones share it.
///
/// ```no_run
/// use emberd_client::{GenerateOptions, aio::Client};
///
/// # async fn example() -> Result<(), emberd_client::Error> {
/// let model = Client::connect().await?.text_model("builtin-t5").await?;
/// let mut stream = model.stream(&["number: four hundred and seven"], &GenerateOptions::default())?;
/// while let Some(piece) = stream.next().await {
///     print!("{}", piece.piece);
/// }
/// println!(", made of {} tokens", stream.answer().await?.texts[0].sequences[0].ids.len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct TextModel {
    lease: Lease,
}

impl Client {
    /// As [`crate::Client::text_model`].
    ///
    /// # Errors
    /// As there.
    pub async fn text_model(&self, id: &str) -> Result<TextModel, Error> {
        let kind = Some(ModelKind::Text2Text);
        Ok(TextModel { lease: Lease::acquire(self, id, kind, false, |_| {}).await? })
    }

    /// As [`crate::Client::text_model_with`]; events are called where the future is polled.
    ///
    /// # Errors
    /// As there.
    pub async fn text_model_with(
        &self,
        id: &str,
        on_event: impl FnMut(Event),
    ) -> Result<TextModel, Error> {
        let kind = Some(ModelKind::Text2Text);
        Ok(TextModel { lease: Lease::acquire(self, id, kind, true, on_event).await? })
    }

    /// As [`crate::Client::generate_text`].
    ///
    /// # Errors
    /// As there.
    pub async fn generate_text<T: AsRef<str>>(
        &self,
        id: &str,
        texts: &[T],
        options: &GenerateOptions,
    ) -> Result<Generated, Error> {
        let target = Target::Model(model_id(id)?);
        let mut question = Question::generate(target, texts, options.clone(), false)?;
        self.ask_on(&mut question, |_| {}).await?.1.generated(texts.len())
    }

    /// As [`crate::Client::fill_mask`].
    ///
    /// # Errors
    /// As there.
    pub async fn fill_mask<T: AsRef<str>>(
        &self,
        id: &str,
        texts: &[T],
        top_k: u32,
    ) -> Result<MasksFilled, Error> {
        let mut question = Question::fill_mask(Target::Model(model_id(id)?), texts, top_k)?;
        self.ask_on(&mut question, |_| {}).await?.1.filled(texts.len(), top_k)
    }
}

impl TextModel {
    /// As [`crate::TextModel::generate`].
    ///
    /// # Errors
    /// As there.
    pub async fn generate<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &GenerateOptions,
    ) -> Result<Generated, Error> {
        let question = Question::generate(UNAIMED, texts, options.clone(), false)?;
        self.lease.ask(question, |_| {}).await?.generated(texts.len())
    }

    /// As [`crate::TextModel::generate_with`]; pieces are called where the future is polled.
    ///
    /// # Errors
    /// As there.
    pub async fn generate_with<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &GenerateOptions,
        mut on_piece: impl FnMut(Piece),
    ) -> Result<Generated, Error> {
        let question = Question::generate(UNAIMED, texts, options.clone(), true)?;
        let on_event = |event| Piece::of(event).into_iter().for_each(&mut on_piece);
        self.lease.ask(question, on_event).await?.generated(texts.len())
    }

    /// As [`TextModel::generate_with`], to be read piece by piece. Nothing is asked before the first
    /// [`TextStream::next`] or [`TextStream::answer`].
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` when the texts are too many for one request.
    pub fn stream<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &GenerateOptions,
    ) -> Result<TextStream, Error> {
        let question = Question::generate(UNAIMED, texts, options.clone(), true)?;
        let (lease, count) = (self.lease.clone(), texts.len());
        let pieces = Arc::new(Mutex::new(VecDeque::new()));
        let queue = Arc::clone(&pieces);
        let making = Box::pin(async move {
            let on_event = |event| lock(&queue).extend(Piece::of(event));
            lease.ask(question, on_event).await?.generated(count)
        });
        Ok(TextStream { pieces, making: Making::Running(making) })
    }

    /// As [`crate::TextModel::fill_mask`].
    ///
    /// # Errors
    /// As there.
    pub async fn fill_mask<T: AsRef<str>>(
        &self,
        texts: &[T],
        top_k: u32,
    ) -> Result<MasksFilled, Error> {
        let question = Question::fill_mask(UNAIMED, texts, top_k)?;
        self.lease.ask(question, |_| {}).await?.filled(texts.len(), top_k)
    }

    /// The model, as it was when the lease was taken.
    #[must_use]
    pub fn info(&self) -> ModelInfo {
        self.lease.info()
    }

    /// The lease.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The client that took it.
    #[must_use]
    pub fn client(&self) -> &Client {
        self.lease.client()
    }

    /// As [`crate::TextModel::release`].
    ///
    /// # Errors
    /// As there.
    pub async fn release(&self) -> Result<(), Error> {
        self.lease.release().await
    }
}

/// Texts as they are made. Dropped, it cancels what is not made yet.
pub struct TextStream {
    /// Pieces that came, and that nobody has taken.
    pieces: Arc<Mutex<VecDeque<Piece>>>,
    making: Making,
}

enum Making {
    Running(Pin<Box<dyn Future<Output = Result<Generated, Error>> + Send>>),
    Done(Result<Generated, Error>),
}

impl TextStream {
    /// The next piece, or `None` when it is over: then [`TextStream::answer`] tells how. A future
    /// that is dropped loses no piece.
    pub async fn next(&mut self) -> Option<Piece> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        if let Making::Running(making) = &mut self.making
            && let Poll::Ready(result) = making.as_mut().poll(context)
        {
            self.making = Making::Done(result);
        }
        match (lock(&self.pieces).pop_front(), &self.making) {
            (Some(piece), _) => Poll::Ready(Some(piece)),
            (None, Making::Done(_)) => Poll::Ready(None),
            (None, Making::Running(_)) => Poll::Pending,
        }
    }

    /// The whole answer. Pieces that were not taken are dropped.
    ///
    /// # Errors
    /// As [`TextModel::generate_with`].
    pub async fn answer(self) -> Result<Generated, Error> {
        match self.making {
            Making::Running(making) => making.await,
            Making::Done(result) => result,
        }
    }
}

impl fmt::Debug for TextStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_done = matches!(self.making, Making::Done(_));
        f.debug_struct("TextStream").field("is_done", &is_done).finish_non_exhaustive()
    }
}
