//! Tokenized text.

/// The tokens of one text, or of a pair of texts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sequence {
    /// Token ids, special tokens included. May be empty (a static model and an empty text).
    pub ids: Vec<u32>,
    /// Whether the text had more than [`ModelSpec::max_tokens`](crate::ModelSpec) tokens and was
    /// truncated.
    pub truncated: bool,
    /// For a pair: how many tokens are in the segment of the first text, its special tokens included.
    /// 0 for a single text.
    pub first_len: usize,
    /// How many tokens at the front are not pooled: a prompt that the model leaves out of its rows.
    pub unpooled: usize,
}
