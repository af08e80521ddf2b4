//! What a queue hands to a worker.

use crate::batching::row_job::{RowJob, TokenizedText};
use std::ops::Range;
use std::sync::Arc;

/// What a worker does next.
#[derive(Debug)]
pub(crate) enum WorkerTask {
    /// Tokenize texts, and stop after this many tokens.
    Tokenize(TextRange, usize),
    /// Compute the rows of a batch.
    Compute(Vec<TokenizedText>),
}

/// Texts of a job that are not tokenized yet. No text is in two ranges.
#[derive(Debug)]
pub(crate) struct TextRange {
    /// The job of the texts.
    pub(crate) job: Arc<RowJob>,
    /// The texts, by their position among those that the job computes.
    pub(crate) texts: Range<usize>,
}
