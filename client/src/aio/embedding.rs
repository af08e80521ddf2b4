//! A leased model that turns texts into rows.

use super::client::AsyncClient;
use super::lease::AsyncLease;
use crate::calls::leased_model::leased_model;
use crate::error::Error;
use crate::results::Embeddings;
use crate::wire::request::{ANY_LEASE, PreparedRequest, model_id};
use emberd_protocol::{EmbedOptions, Event, ModelKind, Target};

/// A lease on an embedding model; as [`crate::EmbeddingModel`]. Clones share it.
#[derive(Debug, Clone)]
pub struct AsyncEmbeddingModel {
    lease: AsyncLease,
}

impl AsyncEmbeddingModel {
    /// As [`crate::EmbeddingModel::embed`].
    ///
    /// # Errors
    /// As there.
    pub async fn embed<T: AsRef<str>>(&self, texts: &[T]) -> Result<Embeddings, Error> {
        self.embed_with(texts, &EmbedOptions::default()).await
    }

    /// As [`crate::EmbeddingModel::embed_with`].
    ///
    /// # Errors
    /// As there.
    pub async fn embed_with<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &EmbedOptions,
    ) -> Result<Embeddings, Error> {
        let request = PreparedRequest::embed(ANY_LEASE, texts, options)?;
        self.lease.send(request).await?.rows(texts.len())
    }

    /// As [`crate::EmbeddingModel::embed_one`].
    ///
    /// # Errors
    /// As there.
    pub async fn embed_one(&self, text: &str) -> Result<Embeddings, Error> {
        self.embed(&[text]).await
    }

    /// The number of values in a row.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.info().dimension as usize
    }
}

leased_model!(AsyncEmbeddingModel, AsyncLease, AsyncClient, async, await);

impl AsyncClient {
    /// As [`crate::Client::embedding_model`].
    ///
    /// # Errors
    /// As there.
    pub async fn embedding_model(&self, id: &str) -> Result<AsyncEmbeddingModel, Error> {
        let lease = AsyncLease::acquire(self, id, Some(ModelKind::Embedding)).await?;
        Ok(AsyncEmbeddingModel { lease })
    }

    /// As [`crate::Client::embedding_model_with`]; `on_event` is called where the future is polled.
    ///
    /// # Errors
    /// As there.
    pub async fn embedding_model_with(
        &self,
        id: &str,
        on_event: impl FnMut(Event),
    ) -> Result<AsyncEmbeddingModel, Error> {
        let kind = Some(ModelKind::Embedding);
        let lease = AsyncLease::acquire_with(self, id, kind, on_event).await?;
        Ok(AsyncEmbeddingModel { lease })
    }

    /// As [`crate::Client::generate_embeddings`].
    ///
    /// # Errors
    /// As there.
    pub async fn generate_embeddings<T: AsRef<str>>(
        &self,
        texts: &[T],
        id: &str,
    ) -> Result<Embeddings, Error> {
        self.generate_embeddings_with(texts, id, &EmbedOptions::default()).await
    }

    /// As [`crate::Client::generate_embeddings_with`].
    ///
    /// # Errors
    /// As there.
    pub async fn generate_embeddings_with<T: AsRef<str>>(
        &self,
        texts: &[T],
        id: &str,
        options: &EmbedOptions,
    ) -> Result<Embeddings, Error> {
        let target = Target::Model(model_id(id)?);
        self.send(PreparedRequest::embed(target, texts, options)?).await?.rows(texts.len())
    }
}
