//! A leased model that turns texts into rows.

use super::client::Client;
use super::lease::Lease;
use crate::calls::leased_model::leased_model;
use crate::error::Error;
use crate::results::Embeddings;
use crate::wire::request::{ANY_LEASE, PreparedRequest, model_id};
use emberd_protocol::{EmbedOptions, Event, ModelKind, Target};

/// A lease on an embedding model. Clones share it.
#[derive(Debug, Clone)]
pub struct EmbeddingModel {
    lease: Lease,
}

impl EmbeddingModel {
    /// One row for each text, in their order. Any text is accepted, even an empty one. A text
    /// that exceeds the model's limit is cut: see [`Embeddings::truncated`].
    ///
    /// Small results come in the response, large ones are read from shared memory.
    ///
    /// # Errors
    /// `REFERENCE_ERROR` after a release; `LIMIT_EXCEEDED` when a request has too many texts, or
    /// when earlier results still hold the connection's shared memory; `OVERLOADED`.
    pub fn embed<T: AsRef<str>>(&self, texts: &[T]) -> Result<Embeddings, Error> {
        self.embed_with(texts, &EmbedOptions::default())
    }

    /// As [`EmbeddingModel::embed`], with another prompt, normalisation, dimension or element type
    /// than the model and its settings have.
    ///
    /// ```no_run
    /// # fn example(model: emberd_client::EmbeddingModel) -> Result<(), emberd_client::Error> {
    /// use emberd_client::{ElementType, EmbedOptions, Prompt};
    ///
    /// let options = EmbedOptions {
    ///     prompt: Prompt::Named("query".into()),
    ///     dimension: Some(256),
    ///     element: ElementType::Ubinary,
    ///     ..EmbedOptions::default()
    /// };
    /// let rows = model.embed_with(&["text to embed"], &options)?;
    /// let bits: Option<&[u8]> = rows.row_bytes(0); // 32 bytes
    /// # let _ = bits;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`EmbeddingModel::embed`], and `INVALID_REQUEST` for options that the model does not support.
    pub fn embed_with<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &EmbedOptions,
    ) -> Result<Embeddings, Error> {
        let request = PreparedRequest::embed(ANY_LEASE, texts, options)?;
        self.lease.send(request)?.rows(texts.len())
    }

    /// One row for one text.
    ///
    /// # Errors
    /// As [`EmbeddingModel::embed`].
    pub fn embed_one(&self, text: &str) -> Result<Embeddings, Error> {
        self.embed(&[text])
    }

    /// The number of values in a row.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.info().dimension as usize
    }
}

leased_model!(EmbeddingModel, Lease, Client);

impl Client {
    /// A lease on a model that turns texts into rows.
    ///
    /// # Errors
    /// As [`Client::model`], and `WRONG_MODEL_TYPE`.
    pub fn embedding_model(&self, id: &str) -> Result<EmbeddingModel, Error> {
        let lease = Lease::acquire(self, id, Some(ModelKind::Embedding))?;
        Ok(EmbeddingModel { lease })
    }

    /// As [`Client::embedding_model`], reporting the progress of the load: see
    /// [`Client::model_with`].
    ///
    /// # Errors
    /// As [`Client::embedding_model`].
    pub fn embedding_model_with(
        &self,
        id: &str,
        on_event: impl FnMut(Event),
    ) -> Result<EmbeddingModel, Error> {
        let lease = Lease::acquire_with(self, id, Some(ModelKind::Embedding), on_event)?;
        Ok(EmbeddingModel { lease })
    }

    /// Rows for texts, with a lease for this call only.
    ///
    /// # Errors
    /// As [`Client::embedding_model`] and [`EmbeddingModel::embed`].
    pub fn generate_embeddings<T: AsRef<str>>(
        &self,
        texts: &[T],
        id: &str,
    ) -> Result<Embeddings, Error> {
        self.generate_embeddings_with(texts, id, &EmbedOptions::default())
    }

    /// As [`Client::generate_embeddings`], with options: see [`EmbeddingModel::embed_with`].
    ///
    /// # Errors
    /// As [`Client::embedding_model`] and [`EmbeddingModel::embed_with`].
    pub fn generate_embeddings_with<T: AsRef<str>>(
        &self,
        texts: &[T],
        id: &str,
        options: &EmbedOptions,
    ) -> Result<Embeddings, Error> {
        let target = Target::Model(model_id(id)?);
        self.send(PreparedRequest::embed(target, texts, options)?)?.rows(texts.len())
    }
}
