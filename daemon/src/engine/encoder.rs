//! Texts to token sequences, with the limits of the model rather than the tokenizer's own.

use std::path::{Path, PathBuf};

use tokenizers::{PostProcessor, Tokenizer, TruncationParams};

use super::load_error::LoadError;
use super::model::{ComputeError, Sequence};

/// A tokenizer that is known to fit its model.
#[derive(Debug)]
pub(super) struct Encoder {
    tokenizer: Tokenizer,
    style: Style,
}

/// How a kind of model wants its texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style {
    /// Special tokens around the text, and no blanks around it before that.
    pub(super) special_tokens: bool,
    /// Lower case before the tokenizer sees it.
    pub(super) lower_case: bool,
}

/// A tokenizer as its file says, not yet fitted to a model.
#[derive(Debug)]
pub(super) struct RawTokenizer {
    file: PathBuf,
    tokenizer: Tokenizer,
}

impl RawTokenizer {
    /// Reads a `tokenizer.json`.
    pub(super) fn open(file: &Path) -> Result<Self, LoadError> {
        let bytes = std::fs::read(file)
            .map_err(|source| LoadError::Read { file: file.to_owned(), source })?;
        Self::parse(file, &bytes)
    }

    /// Takes the bytes of a `tokenizer.json`; `file` is for messages.
    pub(super) fn parse(file: &Path, bytes: &[u8]) -> Result<Self, LoadError> {
        let tokenizer = Tokenizer::from_bytes(bytes)
            .map_err(|source| LoadError::Tokenizer { file: file.to_owned(), source })?;
        Ok(Self { file: file.to_owned(), tokenizer })
    }

    /// Fits the tokenizer to a model with `rows` token rows that reads `max_tokens`.
    pub(super) fn fit(
        mut self,
        rows: usize,
        max_tokens: usize,
        style: Style,
    ) -> Result<Encoder, LoadError> {
        let tokens = self.tokenizer.get_vocab_size(true);
        if tokens > rows {
            return Err(LoadError::TokenizerTooLarge { file: self.file, tokens, rows });
        }
        let added = match self.tokenizer.get_post_processor() {
            Some(processor) if style.special_tokens => processor.added_tokens(false),
            _ => 0,
        };
        // The library subtracts without looking, so this must be sure before it is asked.
        if max_tokens <= added {
            return Err(LoadError::Setting {
                file: self.file,
                setting: "the tokens that a text may have",
                found: max_tokens,
                wanted: format!("more than the {added} special tokens"),
            });
        }
        self.tokenizer.with_padding(None);
        let truncation = TruncationParams { max_length: max_tokens, ..Default::default() };
        if let Err(source) = self.tokenizer.with_truncation(Some(truncation)) {
            return Err(LoadError::Tokenizer { file: self.file, source });
        }
        Ok(Encoder { tokenizer: self.tokenizer, style })
    }
}

impl Encoder {
    /// The tokens of a text.
    pub(super) fn encode(&self, text: &str) -> Result<Sequence, ComputeError> {
        let lowered;
        let mut text = text;
        if self.style.special_tokens {
            text = text.trim();
        }
        if self.style.lower_case {
            lowered = text.to_lowercase();
            text = &lowered;
        }
        let encoding = self
            .tokenizer
            .encode_fast(text, self.style.special_tokens)
            .map_err(ComputeError::Tokenizer)?;
        Ok(Sequence {
            ids: encoding.get_ids().to_vec(),
            truncated: !encoding.get_overflowing().is_empty(),
        })
    }
}
