//! A leased model that turns texts into rows.

use crate::client::Client;
use crate::error::Error;
use crate::lease::Lease;
use crate::line::Tries;
use crate::question::Question;
use crate::view::Embeddings;
use emberd_protocol::{EmbedOptions, ModelInfo};

/// A lease on an embedding model. Clones share it.
#[derive(Debug, Clone)]
pub struct EmbeddingModel {
    lease: Lease,
}

impl EmbeddingModel {
    pub(crate) fn new(lease: Lease) -> Self {
        Self { lease }
    }

    /// One row for each text, in their order. Any text is accepted, the empty one too; of a text
    /// longer than the model reads the end is cut off, which [`Embeddings::truncated`] tells.
    ///
    /// Small results come in the answer, large ones are read in shared memory.
    ///
    /// # Errors
    /// `REFERENCE_ERROR` after a release; `LIMIT_EXCEEDED` when the texts are too many for one
    /// request, or when earlier results still hold the connection's shared memory; `OVERLOADED`.
    pub fn embed<T: AsRef<str>>(&self, texts: &[T]) -> Result<Embeddings, Error> {
        self.embed_with(texts, &EmbedOptions::default())
    }

    /// As [`EmbeddingModel::embed`], with a prompt, a normalisation, a dimension or elements other
    /// than the model and its settings have them.
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
    /// As there, and `INVALID_REQUEST` for options that this model cannot follow.
    pub fn embed_with<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &EmbedOptions,
    ) -> Result<Embeddings, Error> {
        let mut question = Question::embed_leased(texts, options)?;
        let line = self.client().line();
        let mut tries = Tries::new(line, question.is_safe_to_repeat());
        loop {
            let link = line.link()?;
            let result = self.lease.on(&link).and_then(|lease| {
                question.aim(lease)?;
                link.connection.call(&mut question, &mut |_| {})
            });
            match result {
                Err(error) if tries.again(&link, &error) => {}
                result => return result?.rows(texts.len()),
            }
        }
    }

    /// One row for one text.
    ///
    /// # Errors
    /// As [`EmbeddingModel::embed`].
    pub fn embed_one(&self, text: &str) -> Result<Embeddings, Error> {
        self.embed(&[text])
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

    /// Releases it for all clones, and waits until the daemon has.
    ///
    /// # Errors
    /// `REFERENCE_ERROR` the second time.
    pub fn release(&self) -> Result<(), Error> {
        self.lease.release()
    }
}
