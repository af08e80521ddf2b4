//! Encoder-decoders, which generate texts token by token.

use std::fmt;
use std::sync::Arc;

use crate::api::error::ComputeError;
use crate::api::generation_defaults::GenerationDefaults;
use crate::api::sequence::Sequence;
use crate::api::spec::ModelSpec;

/// A loaded encoder-decoder: immutable, and shared by the workers that compute with it.
pub trait Seq2SeqModel: fmt::Debug + Send + Sync + 'static {
    /// Its description. `max_tokens` is the number of positions of the encoder; `dimension` is 0.
    fn spec(&self) -> &ModelSpec;

    /// The generation settings of its folder.
    fn defaults(&self) -> &GenerationDefaults;

    /// The number of tokens that the decoder has logits for.
    fn vocabulary(&self) -> usize;

    /// The most tokens of a hypothesis, the start token included; `None` for no limit.
    fn max_output_tokens(&self) -> Option<usize>;

    /// Tokenizes a text, to at most `max_tokens` tokens, special tokens included.
    ///
    /// # Errors
    /// If the tokenizer itself fails.
    fn tokenize(&self, text: &str, max_tokens: usize) -> Result<Sequence, ComputeError>;

    /// The text of tokens, without special tokens: transformers' `decode(…,
    /// skip_special_tokens=True)`.
    ///
    /// # Errors
    /// If the tokenizer itself fails.
    fn detokenize(&self, ids: &[u32]) -> Result<String, ComputeError>;

    /// How many bytes at the front of `text`, which is the text of these tokens, no further token can
    /// change. An incomplete character at the end need not be left out.
    ///
    /// # Errors
    /// If the tokenizer itself fails.
    fn settled_bytes(&self, ids: &[u32], text: &str) -> Result<usize, ComputeError> {
        let _ = ids;
        Ok(text.len())
    }

    /// The state of one computation on `threads` threads, the calling one included.
    ///
    /// # Errors
    /// If the system cannot start the threads.
    fn decoder(self: Arc<Self>, threads: usize) -> std::io::Result<Box<dyn Decoder>>;
}

/// An encoded input in a [`Decoder`]: its keys and values for cross-attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EncoderOutputId(pub u32);

/// An output sequence in a [`Decoder`]: the keys and values of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HypothesisId(pub u32);

/// Encoded inputs, and the hypotheses that are generated for them. Hypotheses may begin and end between
/// any two steps, and their lengths may differ. Beyond rounding, a hypothesis does not depend on the
/// others in its step.
///
/// An id that was released may be given out again. An unknown id is an error, not a panic.
pub trait Decoder: Send {
    /// Encodes inputs as one batch, and computes their keys and values for cross-attention.
    ///
    /// # Errors
    /// If the device fails.
    fn admit(&mut self, inputs: &[&Sequence]) -> Result<Vec<EncoderOutputId>, ComputeError>;

    /// Begins an empty hypothesis for an input, with memory for `max_tokens` tokens, the start token
    /// included.
    ///
    /// # Errors
    /// If the input is unknown, or memory is short.
    fn begin(
        &mut self,
        input: EncoderOutputId,
        max_tokens: usize,
    ) -> Result<HypothesisId, ComputeError>;

    /// Appends a token to each of these hypotheses and computes the logits of the next one: `logits`
    /// becomes `next.len() * vocabulary` values, row after row. A hypothesis occurs in `next` once at
    /// most.
    ///
    /// # Errors
    /// If the device fails, or a hypothesis is unknown or full.
    fn step(
        &mut self,
        next: &[(HypothesisId, u32)],
        logits: &mut Vec<f32>,
    ) -> Result<(), ComputeError>;

    /// For beam search: replaces the content of `beams[i]` by the previous content of
    /// `beams[from[i]]`, for all `i` at once.
    ///
    /// # Errors
    /// If a hypothesis is unknown.
    fn reorder(&mut self, beams: &[HypothesisId], from: &[usize]) -> Result<(), ComputeError>;

    /// Releases a hypothesis.
    fn end(&mut self, hypothesis: HypothesisId);

    /// Releases an input whose hypotheses have all ended.
    fn forget(&mut self, input: EncoderOutputId);
}
