//! Tokenizers from sentencepiece models: `spiece.model`, `source.spm`.
//!
//! [`SentencePieceModel`] is the checked content of such a file. [`T5Files`] turns it into a tokenizer
//! of the `tokenizers` library, the way transformers converts it for T5. [`Segmenter`] splits texts
//! exactly as the sentencepiece library does, which is what Marian's tokenizer calls.

mod charsmap;
mod fault;
mod model;
mod proto;
mod segmenter;
mod special_tokens;
mod t5;

pub(super) use model::{SPACE, SentencePieceModel};
pub(super) use segmenter::Segmenter;
pub(super) use special_tokens::SpecialTokens;
pub(crate) use t5::T5Files;
