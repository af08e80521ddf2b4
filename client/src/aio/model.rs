//! A leased model that turns texts into rows.

use super::call::call;
use super::client::Client;
use super::lease::Lease;
use crate::answer::Answer;
use crate::error::Error;
use crate::line::{Link, Tries};
use crate::question::Question;
use crate::view::Embeddings;
use emberd_protocol::{EmbedOptions, ModelInfo};

/// A lease on an embedding model; as [`crate::EmbeddingModel`]. Clones share it.
#[derive(Debug, Clone)]
pub struct EmbeddingModel {
    lease: Lease,
}

impl EmbeddingModel {
    pub(super) fn new(lease: Lease) -> Self {
        Self { lease }
    }

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
        let mut question = Question::embed_leased(texts, options)?;
        let mut tries = Tries::new(self.client().line(), question.is_safe_to_repeat());
        loop {
            let link = self.client().link().await?;
            match self.embed_on(&link, &mut question).await {
                Err(error) if tries.again(&link, &error) => {}
                result => return result?.rows(texts.len()),
            }
        }
    }

    async fn embed_on(&self, link: &Link, question: &mut Question) -> Result<Answer, Error> {
        question.aim(self.lease.on(link).await?)?;
        call(&link.connection, question, &mut |_| {}).await
    }

    /// As [`crate::EmbeddingModel::embed_one`].
    ///
    /// # Errors
    /// As there.
    pub async fn embed_one(&self, text: &str) -> Result<Embeddings, Error> {
        self.embed(&[text]).await
    }

    /// Values in a row.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.info().dimension as usize
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

    /// As [`crate::EmbeddingModel::release`].
    ///
    /// # Errors
    /// As there.
    pub async fn release(&self) -> Result<(), Error> {
        self.lease.release().await
    }
}
