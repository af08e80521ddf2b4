//! From texts to tokens and back, as transformers does both.

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use crate::api::error::ComputeError;
use crate::api::sequence::Sequence;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::truncation_side::TruncationSide;
use crate::tokenizer::marian::MarianTokenizer;
use crate::tokenizer::{TokenizerFile, surrounding_special_tokens};

/// A tokenizer as in its files, not yet fitted to a model.
#[derive(Debug)]
pub(super) enum RawCodec {
    Library(Box<TokenizerFile>),
    Marian(Box<MarianTokenizer>),
}

/// A tokenizer that fits its model.
#[derive(Debug)]
pub(super) struct TextCodec {
    splitter: Splitter,
    /// Special tokens in front of a text.
    before: Vec<u32>,
    /// Special tokens behind it.
    after: Vec<u32>,
    /// Which end of a long text is cut off.
    side: TruncationSide,
    /// `clean_up_tokenization_spaces`.
    cleans_up: bool,
    /// Tokens for single bytes, which only together with their neighbours are text; ascending.
    bytes: Vec<u32>,
}

impl TextCodec {
    /// Fits a tokenizer to a model with `rows` token rows.
    pub(super) fn new(raw: RawCodec, rows: usize, config: &Value) -> Result<Self, LoadError> {
        let cleans_up = config["clean_up_tokenization_spaces"] == true;
        let configured_side = |file: &Path| {
            let side = &config["truncation_side"];
            TruncationSide::of_config(side, &file.with_file_name("tokenizer_config.json"))
        };
        let (file, largest, codec) = match raw {
            RawCodec::Library(raw) => {
                let TokenizerFile { file, mut tokenizer, largest, .. } = *raw;
                let side =
                    configured_side(&file)?.unwrap_or_else(|| TruncationSide::of(&tokenizer));
                let failed = |source| LoadError::Tokenizer { file: file.clone(), source };
                tokenizer.with_padding(None);
                tokenizer.with_truncation(None).map_err(failed)?;
                let (before, after) = surrounding_special_tokens(&tokenizer).map_err(failed)?;
                let bytes = byte_tokens(&tokenizer);
                let splitter = Splitter::Library(Box::new(tokenizer));
                (file, largest, Self { splitter, before, after, side, cleans_up, bytes })
            }
            RawCodec::Marian(tokenizer) => {
                let side = configured_side(&tokenizer.file)?.unwrap_or_default();
                let (before, after) = (Vec::new(), vec![tokenizer.end]);
                let (file, largest) = (tokenizer.file.clone(), tokenizer.largest);
                let (splitter, bytes) = (Splitter::Marian(tokenizer), Vec::new());
                (file, largest, Self { splitter, before, after, side, cleans_up, bytes })
            }
        };
        let token = codec.before.iter().chain(&codec.after).copied().fold(largest, u32::max);
        if token as usize >= rows {
            return Err(LoadError::TokenizerTooLarge { file, token, rows });
        }
        Ok(codec)
    }

    /// The tokens of a text, special ones included, cut to `max_tokens`.
    pub(super) fn tokenize(&self, text: &str, max_tokens: usize) -> Result<Sequence, ComputeError> {
        let added = self.before.len() + self.after.len();
        let max_text_tokens = max_tokens.saturating_sub(added);
        let mut bytes =
            max_text_tokens.saturating_mul(BYTES_OF_A_TOKEN).clamp(LEAST_BYTES, MOST_BYTES);
        loop {
            let read = self.side.part(text, bytes);
            let tokens = self.tokens(read)?;
            let is_part = read.len() < text.len();
            let is_enough = tokens.len() >= max_text_tokens.saturating_add(UNSETTLED_TOKENS);
            if is_part && !is_enough && bytes < MOST_BYTES {
                bytes = bytes.saturating_mul(2).min(MOST_BYTES);
                continue;
            }
            let mut ids = [&self.before[..], &tokens].concat();
            self.side.keep(&mut ids, self.before.len(), max_text_tokens);
            ids.extend_from_slice(&self.after);
            let truncated = is_part || tokens.len() > max_text_tokens;
            return Ok(Sequence { ids, truncated, ..Sequence::default() });
        }
    }

    /// How many bytes of `text`, the text of `ids`, no later token can change. A run of byte tokens at
    /// the end may still become other characters, and a later mark may remove a blank before it.
    pub(super) fn settled_bytes(&self, ids: &[u32], text: &str) -> Result<usize, ComputeError> {
        let is_byte = |id: &u32| self.bytes.binary_search(id).is_ok();
        let run = ids.iter().rev().take_while(|id| is_byte(id)).count();
        let mut settled = text.len();
        if run > 0 {
            let before = self.detokenize(&ids[..ids.len() - run])?;
            let pairs = before.char_indices().zip(text.chars());
            let other = pairs.into_iter().find(|((_, a), b)| a != b).map(|((at, _), _)| at);
            settled = other.unwrap_or(before.len()).min(text.len());
        }
        if self.cleans_up {
            settled = text[..settled].rfind(' ').unwrap_or(0);
        }
        Ok(settled)
    }

    /// The text of tokens; special ones are left out.
    pub(super) fn detokenize(&self, ids: &[u32]) -> Result<String, ComputeError> {
        let text = match &self.splitter {
            Splitter::Library(tokenizer) => {
                tokenizer.decode(ids, true).map_err(ComputeError::Tokenizer)?
            }
            Splitter::Marian(tokenizer) => tokenizer.detokenize(ids),
        };
        Ok(if self.cleans_up { clean_up(text) } else { text })
    }

    /// The tokens of a text without special ones.
    fn tokens(&self, text: &str) -> Result<Vec<u32>, ComputeError> {
        match &self.splitter {
            Splitter::Library(tokenizer) => {
                let encoding = tokenizer.encode_fast(text, false);
                Ok(encoding.map_err(ComputeError::Tokenizer)?.get_ids().to_vec())
            }
            Splitter::Marian(tokenizer) => Ok(tokenizer.tokenize(text)),
        }
    }
}

/// Splits texts into tokens and joins them again.
#[derive(Debug)]
enum Splitter {
    Library(Box<Tokenizer>),
    Marian(Box<MarianTokenizer>),
}

/// Bytes of a text that are tokenized first. If they give too few tokens, twice as many are.
const LEAST_BYTES: usize = 16 << 10;

/// Bytes of a text that are tokenized for each token that it may have.
const BYTES_OF_A_TOKEN: usize = 64;

/// Tokens at the end of the tokenized part that the rest of the text might change.
const UNSETTLED_TOKENS: usize = 64;

/// The most bytes of a text that are tokenized, however few tokens they give.
const MOST_BYTES: usize = 1 << 20;

/// The tokens that stand for a byte, such as `<0x0A>`, ascending.
fn byte_tokens(tokenizer: &Tokenizer) -> Vec<u32> {
    let token = |byte: u8| tokenizer.token_to_id(&format!("<0x{byte:02X}>"));
    let mut tokens: Vec<u32> = (0..=u8::MAX).filter_map(token).collect();
    tokens.sort_unstable();
    tokens
}

/// Removes blanks in front of punctuation marks and within contractions, by English rules.
fn clean_up(mut text: String) -> String {
    for (from, to) in [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ] {
        text = text.replace(from, to);
    }
    text
}

#[cfg(test)]
mod tests;
