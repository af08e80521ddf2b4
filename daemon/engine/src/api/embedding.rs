//! Models that compute rows for texts.

use std::fmt;
use std::sync::Arc;

use crate::api::error::ComputeError;
use crate::api::sequence::Sequence;
use crate::api::spec::ModelSpec;

/// A loaded embedding model: immutable, and shared by the workers that compute with it.
pub trait EmbeddingModel: fmt::Debug + Send + Sync + 'static {
    /// Its description.
    fn spec(&self) -> &ModelSpec;

    /// Tokenizes a text, with the default prompt in front of it. Any string is accepted.
    ///
    /// # Errors
    /// If the tokenizer itself fails, which no text alone should cause.
    fn tokenize(&self, text: &str) -> Result<Sequence, ComputeError>;

    /// Tokenizes a text with a prompt in front of it in place of the default one. An empty prompt is
    /// none.
    ///
    /// # Errors
    /// As [`EmbeddingModel::tokenize`].
    fn tokenize_with_prompt(&self, prompt: &str, text: &str) -> Result<Sequence, ComputeError> {
        self.tokenize(&format!("{prompt}{text}"))
    }

    /// Tokenizes a pair of texts as one sequence, for models that score pairs.
    ///
    /// # Errors
    /// If the model takes no pairs, or as [`EmbeddingModel::tokenize`].
    fn tokenize_pair(&self, first: &str, second: &str) -> Result<Sequence, ComputeError> {
        let _ = (first, second);
        Err(ComputeError::NoPairs)
    }

    /// A hash of everything that determines a row besides the text. Cached rows are shared between
    /// models of the same fingerprint. `None`: rows are not cached.
    fn fingerprint(&self) -> Option<[u8; 32]> {
        None
    }

    /// The private state (scratch memory) of one worker over these weights.
    fn compute_context(self: Arc<Self>) -> Box<dyn ComputeContext>;
}

/// The state of one worker that computes with a model. Its scratch memory grows with the largest batch.
pub trait ComputeContext: Send {
    /// Computes a row for each sequence and writes it to the row of the same index.
    ///
    /// `rows[i]` has [`ModelSpec::dimension`] values of undefined content, all of which are
    /// overwritten. Beyond rounding, a row does not depend on the other sequences of its batch.
    ///
    /// # Errors
    /// If the device fails; the content of the rows is then undefined.
    fn compute(&mut self, batch: &[&Sequence], rows: &mut [&mut [f32]])
    -> Result<(), ComputeError>;
}

/// Checks that there is one row of the model's dimension for each sequence.
pub(crate) fn check_rows(
    spec: &ModelSpec,
    batch: &[&Sequence],
    rows: &[&mut [f32]],
) -> Result<(), ComputeError> {
    if batch.len() != rows.len() {
        return Err(ComputeError::RowCount { sequences: batch.len(), rows: rows.len() });
    }
    match rows.iter().find(|row| row.len() != spec.dimension) {
        Some(row) => Err(ComputeError::RowLength { found: row.len(), wanted: spec.dimension }),
        None => Ok(()),
    }
}
