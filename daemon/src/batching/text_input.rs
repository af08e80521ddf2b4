//! What the sequences of a request consist of.

use emberd_engine::{ComputeError, EmbeddingModel, Sequence};
use emberd_protocol::{Pairing, TextBlock};

/// How the texts of a request become the inputs of a model.
#[derive(Debug)]
pub(crate) enum TextInput {
    /// Each text is an input, with this prompt in front. `None`: the model's default prompt.
    Single(Option<String>),
    /// Each pair of texts is an input.
    Pairs(Pairing),
}

impl TextInput {
    /// Tokenizes the input at a position: a text with its prompt, or a pair.
    pub(crate) fn tokenize(
        &self,
        model: &dyn EmbeddingModel,
        texts: &TextBlock,
        position: usize,
    ) -> Result<Sequence, ComputeError> {
        let text = |at| texts.get(at).unwrap_or_default();
        match self {
            Self::Single(None) => model.tokenize(text(position)),
            Self::Single(Some(prompt)) => model.tokenize_with_prompt(prompt, text(position)),
            Self::Pairs(Pairing::QueryFirst) => model.tokenize_pair(text(0), text(position + 1)),
            Self::Pairs(Pairing::Adjacent) => {
                model.tokenize_pair(text(2 * position), text(2 * position + 1))
            }
        }
    }
}
