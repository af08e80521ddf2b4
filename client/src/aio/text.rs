//! A leased model that generates texts, or fills masks in them.

use super::client::AsyncClient;
use super::lease::AsyncLease;
use super::text_stream::TextStream;
use crate::calls::leased_model::leased_model;
use crate::error::Error;
use crate::results::Piece;
use crate::wire::request::{ANY_LEASE, PreparedRequest, model_id};
use emberd_protocol::{Event, GenerateOptions, Generated, MasksFilled, ModelKind, Target};

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
pub struct AsyncTextModel {
    lease: AsyncLease,
}

impl AsyncTextModel {
    /// As [`crate::TextModel::generate`].
    ///
    /// # Errors
    /// As there.
    pub async fn generate<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &GenerateOptions,
    ) -> Result<Generated, Error> {
        let request = PreparedRequest::generate(ANY_LEASE, texts, options, false)?;
        self.lease.send(request).await?.generated(texts.len())
    }

    /// As [`crate::TextModel::generate_with`]; `on_piece` is called where the future is polled.
    ///
    /// # Errors
    /// As there.
    pub async fn generate_with<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &GenerateOptions,
        mut on_piece: impl FnMut(Piece),
    ) -> Result<Generated, Error> {
        let request = PreparedRequest::generate(ANY_LEASE, texts, options, true)?;
        let on_event = |event| Piece::from_event(event).into_iter().for_each(&mut on_piece);
        self.lease.send_with(request, on_event).await?.generated(texts.len())
    }

    /// As [`AsyncTextModel::generate_with`], as a stream of pieces. The first [`TextStream::next`]
    /// or [`TextStream::answer`] sends the request.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` when a request has too many texts.
    pub fn stream<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &GenerateOptions,
    ) -> Result<TextStream, Error> {
        let request = PreparedRequest::generate(ANY_LEASE, texts, options, true)?;
        let (lease, count) = (self.lease.clone(), texts.len());
        Ok(TextStream::new(async move |on_event| {
            lease.send_with(request, on_event).await?.generated(count)
        }))
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
        let request = PreparedRequest::fill_mask(ANY_LEASE, texts, top_k)?;
        self.lease.send(request).await?.filled(texts.len(), top_k)
    }
}

leased_model!(AsyncTextModel, AsyncLease, AsyncClient, async, await);

impl AsyncClient {
    /// As [`crate::Client::text_model`].
    ///
    /// # Errors
    /// As there.
    pub async fn text_model(&self, id: &str) -> Result<AsyncTextModel, Error> {
        let lease = AsyncLease::acquire(self, id, Some(ModelKind::Text2Text)).await?;
        Ok(AsyncTextModel { lease })
    }

    /// As [`crate::Client::text_model_with`]; `on_event` is called where the future is polled.
    ///
    /// # Errors
    /// As there.
    pub async fn text_model_with(
        &self,
        id: &str,
        on_event: impl FnMut(Event),
    ) -> Result<AsyncTextModel, Error> {
        let kind = Some(ModelKind::Text2Text);
        let lease = AsyncLease::acquire_with(self, id, kind, on_event).await?;
        Ok(AsyncTextModel { lease })
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
        let request = PreparedRequest::generate(target, texts, options, false)?;
        self.send(request).await?.generated(texts.len())
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
        let request = PreparedRequest::fill_mask(Target::Model(model_id(id)?), texts, top_k)?;
        self.send(request).await?.filled(texts.len(), top_k)
    }
}
