//! Counters of a model that generates texts.

use crate::ground::histogram::TimeHistogram;
use std::sync::atomic::{AtomicU64, AtomicUsize};

/// What the worker of a model has done.
#[derive(Debug, Default)]
pub struct TextWork {
    /// Texts that were answered.
    pub(crate) texts: AtomicU64,
    /// Tokens of inputs that were encoded.
    pub(crate) input_tokens: AtomicU64,
    /// Tokens that were computed: one for each sequence or beam at each step.
    pub(crate) tokens: AtomicU64,
    /// Steps that were computed.
    pub(crate) steps: AtomicU64,
    /// Texts in the batch now.
    pub(crate) running: AtomicUsize,
    /// How long texts waited, from the arrival of their request until they were tokenized.
    pub(crate) waits: TimeHistogram,
}
