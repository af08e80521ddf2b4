//! The texts that are computed next: sorted by length and cut into batches.
//!
//! Batches are packed, so a mix of lengths wastes nothing. Sorting answers single queries before
//! the paragraphs that arrived with them, and would serve an engine that pads. The window is small
//! on purpose: its texts are computed before anything that arrives later.

use crate::batching::row_job::TokenizedText;

/// How batches are formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Tokens of one batch. A longer text is a batch of its own.
    pub tokens: usize,
    /// Texts of one batch.
    pub texts: usize,
}

/// A window holds the tokens of this many batches.
const WINDOW_BATCHES: usize = 2;

/// Texts that are collected for the next batches.
#[derive(Debug)]
pub(super) struct TokenWindow {
    limits: BatchLimits,
    texts: Vec<TokenizedText>,
    tokens: usize,
}

impl BatchLimits {
    /// Tokens of a window.
    pub(super) fn window_tokens(self) -> usize {
        self.tokens * WINDOW_BATCHES
    }
}

impl TokenWindow {
    /// An empty window, with room for the texts that there are.
    pub(super) fn new(limits: BatchLimits, texts: usize) -> Self {
        let texts = Vec::with_capacity(texts.min(limits.window_tokens()));
        Self { limits, texts, tokens: 0 }
    }

    /// Whether it has the tokens of its batches.
    pub(super) fn is_full(&self) -> bool {
        self.tokens >= self.limits.window_tokens()
    }

    /// Adds a text.
    pub(super) fn push(&mut self, text: TokenizedText) {
        self.tokens += text.cost();
        self.texts.push(text);
    }

    /// The batches, those with the shortest texts first.
    pub(super) fn into_batches(self) -> Vec<Vec<TokenizedText>> {
        let Self { limits, mut texts, .. } = self;
        texts.sort_by_key(TokenizedText::cost);
        let mut rest = texts.into_iter();
        let mut batches = Vec::new();
        while !rest.as_slice().is_empty() {
            let mut tokens = 0;
            let fits = |text: &&TokenizedText| {
                tokens += text.cost();
                tokens <= limits.tokens
            };
            let count = rest.as_slice().iter().take(limits.texts).take_while(fits).count().max(1);
            batches.push(rest.by_ref().take(count).collect());
        }
        batches
    }
}
