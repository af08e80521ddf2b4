//! How texts are tokenized for a kind of model.

use crate::checkpoint::text_limits::TextLimits;
use crate::checkpoint::truncation_side::TruncationSide;

/// How texts are tokenized for a kind of model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenizeOptions {
    /// Whether to trim the text and to put special tokens around it.
    pub(crate) special_tokens: bool,
    /// Whether to lower-case the text before the tokenizer sees it.
    pub(crate) lower_case: bool,
    /// Whether the tokens of a prompt are pooled like others.
    pub(crate) pools_prompt: bool,
    /// Which end of a long text is cut off; `None` leaves it to the tokenizer's file.
    pub(crate) side: Option<TruncationSide>,
    /// Whether the second text of a pair has other segment ids than the first.
    pub(crate) tells_segments: bool,
}

impl TokenizeOptions {
    /// The options of a transformer.
    pub(crate) fn of(limits: TextLimits, pools_prompt: bool) -> Self {
        let TextLimits { lower_case, side, tells_segments, .. } = limits;
        Self { special_tokens: true, lower_case, pools_prompt, side, tells_segments }
    }
}
