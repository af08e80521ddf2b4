//! From a tokenizer's file to a tokenizer that fits its model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenizers::Tokenizer;

use crate::checkpoint::folder::read_file;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::truncation_side::TruncationSide;
use crate::tokenizer::chunks::Chunker;
use crate::tokenizer::options::TokenizeOptions;
use crate::tokenizer::pair::PairTemplate;
use crate::tokenizer::sentencepiece::T5Files;
use crate::tokenizer::special_tokens::surrounding_special_tokens;
use crate::tokenizer::text_tokenizer::{TextTokenizer, text_tokens};

/// A tokenizer as its file describes it, not yet fitted to a model.
#[derive(Debug)]
pub(crate) struct TokenizerFile {
    /// For messages.
    pub(crate) file: PathBuf,
    pub(crate) tokenizer: Tokenizer,
    /// A hash of everything that determines the tokenizer.
    pub(crate) digest: [u8; 32],
    /// The largest token id.
    pub(crate) largest: u32,
}

impl TokenizerFile {
    /// Reads a `tokenizer.json`.
    pub(crate) fn open(file: &Path) -> Result<Self, LoadError> {
        let bytes =
            read_file(file).map_err(|source| LoadError::Read { file: file.to_owned(), source })?;
        Self::parse(file, &bytes)
    }

    /// Parses the bytes of a `tokenizer.json`; `file` is for messages.
    pub(crate) fn parse(file: &Path, bytes: &[u8]) -> Result<Self, LoadError> {
        let tokenizer = Tokenizer::from_bytes(bytes)
            .map_err(|source| LoadError::Tokenizer { file: file.to_owned(), source })?;
        Ok(Self::new(file, tokenizer, *blake3::hash(bytes).as_bytes()))
    }

    /// Reads the tokenizer of a folder: its `tokenizer.json`, or for a T5 without one its
    /// `spiece.model`.
    pub(crate) fn of_folder(folder: &Path, architecture: &str) -> Result<Self, LoadError> {
        let file = folder.join("tokenizer.json");
        let is_t5 = matches!(architecture, "t5" | "mt5");
        match is_t5 && !file.exists() {
            true => {
                T5Files::of_folder(folder)?.map_or_else(|| Self::open(&file), |t5| Self::of_t5(&t5))
            }
            false => Self::open(&file),
        }
    }

    /// Converts the tokenizer of a T5 without a `tokenizer.json`.
    pub(crate) fn of_t5(files: &T5Files) -> Result<Self, LoadError> {
        Ok(Self::new(&files.file, files.tokenizer()?, files.digest()))
    }

    /// Fits the tokenizer to a model with `rows` token rows that takes `max_tokens` tokens, special
    /// tokens included. `prompt` is put in front of texts that come without another one.
    pub(crate) fn fit(
        mut self,
        rows: usize,
        max_tokens: usize,
        options: TokenizeOptions,
        prompt: String,
    ) -> Result<TextTokenizer, LoadError> {
        let own_side = TruncationSide::of(&self.tokenizer);
        self.tokenizer.with_padding(None);
        let failed = |source| LoadError::Tokenizer { file: self.file.clone(), source };
        self.tokenizer.with_truncation(None).map_err(failed)?;
        let (before, after) = if options.special_tokens {
            surrounding_special_tokens(&self.tokenizer).map_err(failed)?
        } else {
            (vec![], vec![])
        };
        // Special tokens of the post-processor need not be in the vocabulary.
        let token = before.iter().chain(&after).copied().fold(self.largest, u32::max);
        if token as usize >= rows {
            return Err(LoadError::TokenizerTooLarge { file: self.file, token, rows });
        }
        let max_tokens = text_tokens(max_tokens, before.len() + after.len(), &self.file)?;
        let tokens = self.tokenizer.get_added_tokens_decoder();
        let special = tokens.into_iter().filter(|(_, token)| token.special);
        let mut special: Vec<u32> = special.map(|(id, _)| id).collect();
        special.sort_unstable();
        let pair = PairTemplate::of(&self.tokenizer).ok().filter(|_| options.special_tokens);
        Ok(TextTokenizer {
            chunker: Chunker::of(&self.tokenizer),
            pair: pair.map(|pair| pair.with_segments(options.tells_segments)),
            side: options.side.unwrap_or(own_side),
            tokenizer: Arc::new(self.tokenizer),
            options,
            prompt,
            special,
            before,
            after,
            max_tokens,
            own_side,
        })
    }

    fn new(file: &Path, tokenizer: Tokenizer, digest: [u8; 32]) -> Self {
        // Computed here because this runs while another thread reads the weights.
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        Self { file: file.to_owned(), tokenizer, digest, largest }
    }
}
