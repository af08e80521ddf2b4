//! Masked language models, which find tokens for the masks of a text.

use std::fmt;
use std::sync::Arc;

use crate::api::error::ComputeError;
use crate::api::sequence::Sequence;
use crate::api::spec::ModelSpec;

/// A loaded masked language model: immutable, and shared by the workers that compute with it.
pub trait MaskedModel: fmt::Debug + Send + Sync + 'static {
    /// Its description; `dimension` is 0.
    fn spec(&self) -> &ModelSpec;

    /// Tokenizes a text, to at most `max_tokens` tokens. Its masks are the tokenizer's mask token,
    /// spelled as [`MaskedModel::mask`] gives it.
    ///
    /// # Errors
    /// If the tokenizer itself fails.
    fn tokenize(&self, text: &str, max_tokens: usize) -> Result<Sequence, ComputeError>;

    /// The spelling of a mask in a text, such as `[MASK]`.
    fn mask(&self) -> &str;

    /// The text of a token.
    fn token_text(&self, id: u32) -> String;

    /// The private state (scratch memory) of one worker over these weights.
    fn mask_context(self: Arc<Self>) -> Box<dyn MaskContext>;
}

/// The state of one worker that fills masks.
pub trait MaskContext: Send {
    /// The `top_k` most likely tokens of each mask of each sequence, with their probabilities among all
    /// tokens, in descending order.
    ///
    /// # Errors
    /// If the device fails.
    fn fill(
        &mut self,
        batch: &[&Sequence],
        top_k: usize,
    ) -> Result<Vec<Vec<MaskScores>>, ComputeError>;
}

/// The candidates for one mask.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskScores {
    /// The position of the mask among the tokens of its sequence.
    pub position: u32,
    /// Tokens with their probabilities, in descending order.
    pub candidates: Vec<(u32, f32)>,
}
