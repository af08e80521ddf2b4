//! Texts to token ids, within the limits of the model instead of the tokenizer's own.
//!
//! A [`TokenizerFile`] is a tokenizer as published. Fitted to a model it is a [`TextTokenizer`], which
//! adds special tokens and prompts, truncates, and looks at no more of a long text than its tokens
//! need. [`marian`] and [`sentencepiece`] are the tokenizers that are not a `tokenizer.json`.
//!
//! Invariant: the tokens of a text do not depend on how much of it the tokenizer reads.

mod chunks;
pub(crate) mod marian;
pub(crate) mod memory_need;
mod open;
mod options;
mod pair;
pub(crate) mod sentencepiece;
mod special_tokens;
mod text_tokenizer;
mod truncation;

pub(crate) use open::TokenizerFile;
pub(crate) use options::TokenizeOptions;
pub(crate) use special_tokens::surrounding_special_tokens;
pub(crate) use text_tokenizer::TextTokenizer;
