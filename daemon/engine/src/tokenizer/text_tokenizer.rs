//! Text to token ids.

use std::path::Path;
use std::sync::Arc;

use tokenizers::Tokenizer;

use crate::api::error::ComputeError;
use crate::api::sequence::Sequence;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::text_limits::TextLimits;
use crate::checkpoint::truncation_side::TruncationSide;
use crate::tokenizer::chunks::{CHUNK_BYTES, Chunk, Chunker};
use crate::tokenizer::options::TokenizeOptions;
use crate::tokenizer::pair::{PairTemplate, shares};

/// A tokenizer that fits its model: all its ids are rows of the model's table.
#[derive(Debug)]
pub(crate) struct TextTokenizer {
    /// Shared by text tokenizers with other limits.
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) options: TokenizeOptions,
    /// The default prompt, put in front of a text.
    pub(super) prompt: String,
    /// The ids of special tokens, ascending. Only used for prompts that are not pooled.
    pub(super) special: Vec<u32>,
    /// Special tokens in front of a text.
    pub(super) before: Vec<u32>,
    /// Special tokens behind a text.
    pub(super) after: Vec<u32>,
    /// How two texts are joined, if the tokenizer can do it.
    pub(super) pair: Option<PairTemplate>,
    /// The most tokens of a text, special tokens not included.
    pub(super) max_tokens: usize,
    /// Which end of a long text is cut off.
    pub(super) side: TruncationSide,
    /// Which end the tokenizer's own file says.
    pub(super) own_side: TruncationSide,
    /// Splits long texts into chunks; `None` if the tokens of a text may not be those of its chunks.
    pub(super) chunker: Option<Chunker>,
}

/// Bytes of text that are tokenized at first for each token, if the text cannot be split into chunks.
const BYTES_PER_TOKEN: usize = 64;

/// The most bytes of text that are tokenized, if the text cannot be split into chunks.
const MAX_PREFIX_BYTES: usize = 1 << 20;

/// Tokens at the cut of a text that the text behind the cut could change.
const UNSETTLED_TOKENS: usize = 64;

impl TextTokenizer {
    /// The same tokenizer with other limits, without a prompt: for a head that scores pairs. `file` is
    /// for messages.
    pub(crate) fn with_limits(&self, limits: TextLimits, file: &Path) -> Result<Self, LoadError> {
        let options = TokenizeOptions::of(limits, true);
        let pair = self.pair.clone().map(|pair| pair.with_segments(options.tells_segments));
        let added = self.before.len() + self.after.len();
        Ok(Self {
            tokenizer: Arc::clone(&self.tokenizer),
            max_tokens: text_tokens(limits.max_tokens, added, file)?,
            side: options.side.unwrap_or(self.own_side),
            options,
            prompt: String::new(),
            special: self.special.clone(),
            before: self.before.clone(),
            after: self.after.clone(),
            pair,
            own_side: self.own_side,
            chunker: self.chunker.clone(),
        })
    }

    /// The tokens of a text with the default prompt in front of it.
    pub(crate) fn tokenize(&self, text: &str) -> Result<Sequence, ComputeError> {
        self.tokenize_with_prompt(&self.prompt, text)
    }

    /// The tokens of a text with a prompt in front of it, tokenized as one text.
    pub(crate) fn tokenize_with_prompt(
        &self,
        prompt: &str,
        text: &str,
    ) -> Result<Sequence, ComputeError> {
        if prompt.is_empty() {
            return self.tokenize_trimmed(text);
        }
        let mut sequence = self.tokenize_trimmed(&format!("{prompt}{text}"))?;
        if !self.options.pools_prompt {
            sequence.unpooled = self.prompt_len(prompt)?.min(sequence.ids.len());
        }
        Ok(sequence)
    }

    /// The tokens of a text, with the white space around it and without a prompt.
    pub(crate) fn tokenize_untrimmed(&self, text: &str) -> Result<Sequence, ComputeError> {
        self.tokenize_at_most(text, usize::MAX)
    }

    /// The same, but at most `max_tokens` of them, special tokens included.
    pub(crate) fn tokenize_at_most(
        &self,
        text: &str,
        max_tokens: usize,
    ) -> Result<Sequence, ComputeError> {
        let most = max_tokens.saturating_sub(self.before.len() + self.after.len());
        let mut ids = self.before.clone();
        let truncated = self.append(text, most.min(self.max_tokens), &mut ids)?;
        ids.extend_from_slice(&self.after);
        Ok(Sequence { ids, truncated, ..Sequence::default() })
    }

    /// The tokens of two texts as one sequence. If they are too many, the longer text is truncated
    /// first. Unlike a single text, the texts of a pair are not trimmed.
    pub(crate) fn tokenize_pair(
        &self,
        first: &str,
        second: &str,
    ) -> Result<Sequence, ComputeError> {
        let template = self.pair.as_ref().ok_or(ComputeError::NoPairs)?;
        let all = self.before.len() + self.max_tokens + self.after.len();
        let most = all.saturating_sub(template.len());
        let tokens_of = |text, most| {
            let mut ids = Vec::new();
            let truncated = self.append(text, most, &mut ids)?;
            Ok::<_, ComputeError>((ids, truncated))
        };
        // One token more than there is space for tells which texts are too long.
        let (mut a, a_is_cut) = tokens_of(first, most + 1)?;
        let (mut b, b_is_cut) = tokens_of(second, most + 1)?;
        let mut lengths = (a.len(), b.len());
        if lengths.0.min(lengths.1) > most && most % 2 == 1 {
            // The odd token goes to the longer text, which only whole texts tell.
            lengths =
                (tokens_of(first, usize::MAX)?.0.len(), tokens_of(second, usize::MAX)?.0.len());
        }
        let (a_len, b_len) = shares(lengths, most);
        let truncated = a_is_cut || b_is_cut || a_len < a.len() || b_len < b.len();
        self.side.keep(&mut a, 0, a_len);
        self.side.keep(&mut b, 0, b_len);
        let (ids, first_len) = template.join(&a, &b);
        Ok(Sequence { ids, truncated, first_len, ..Sequence::default() })
    }

    /// The id of a token by its spelling in the vocabulary.
    pub(crate) fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// The text of a token; empty if the tokenizer does not know its id.
    pub(crate) fn token_text(&self, id: u32) -> String {
        self.tokenizer.decode(&[id], false).unwrap_or_default()
    }

    fn tokenize_trimmed(&self, text: &str) -> Result<Sequence, ComputeError> {
        self.tokenize_untrimmed(if self.options.special_tokens { text.trim() } else { text })
    }

    /// How many tokens at the front of a text count as the prompt's: as many as the prompt has alone,
    /// without the special token at its end. This is how sentence-transformers counts, even if prompt
    /// and text share a token.
    fn prompt_len(&self, prompt: &str) -> Result<usize, ComputeError> {
        let ids = self.tokenize_trimmed(prompt)?.ids;
        let ends = ids.last().is_some_and(|last| self.special.binary_search(last).is_ok());
        Ok(ids.len() - usize::from(ends))
    }

    /// Appends the tokens of a text, at most `most`. Returns whether some were left out.
    fn append(&self, text: &str, most: usize, ids: &mut Vec<u32>) -> Result<bool, ComputeError> {
        match &self.chunker {
            Some(chunker) => self.append_by_chunks(chunker, text, most, ids),
            None => self.append_prefix(text, most, ids),
        }
    }

    /// [`Self::append`], one chunk after the other until there are enough tokens.
    fn append_by_chunks(
        &self,
        chunker: &Chunker,
        mut text: &str,
        most: usize,
        ids: &mut Vec<u32>,
    ) -> Result<bool, ComputeError> {
        let (start, mut is_cut) = (ids.len(), false);
        loop {
            let Chunk { len, next } = chunker.first(text);
            is_cut |= len < next;
            let (chunk, rest) = (&text[..len], &text[next..]);
            ids.extend_from_slice(self.encode(chunk)?.get_ids());
            if ids.len() - start > most {
                is_cut = true;
                self.side.keep(ids, start, most);
                if self.side == TruncationSide::Right {
                    return Ok(true);
                }
            }
            if rest.is_empty() {
                return Ok(is_cut);
            }
            text = rest;
        }
    }

    /// [`Self::append`], from a part at one end of the text that is doubled until it has enough tokens.
    fn append_prefix(
        &self,
        text: &str,
        most: usize,
        ids: &mut Vec<u32>,
    ) -> Result<bool, ComputeError> {
        let start = ids.len();
        let enough = most.saturating_add(UNSETTLED_TOKENS);
        let mut bytes = most.saturating_mul(BYTES_PER_TOKEN).clamp(CHUNK_BYTES, MAX_PREFIX_BYTES);
        loop {
            let part = self.side.part(text, bytes);
            let encoding = self.encode(part)?;
            let tokens = encoding.get_ids();
            let is_part = part.len() < text.len();
            if is_part && tokens.len() < enough && bytes < MAX_PREFIX_BYTES {
                bytes = bytes.saturating_mul(2).min(MAX_PREFIX_BYTES);
                continue;
            }
            ids.extend_from_slice(tokens);
            self.side.keep(ids, start, most);
            return Ok(is_part || tokens.len() > most);
        }
    }

    /// The tokens of a text alone, without special tokens.
    fn encode(&self, text: &str) -> Result<tokenizers::Encoding, ComputeError> {
        let lowered = self.options.lower_case.then(|| text.to_lowercase());
        let text = lowered.as_deref().unwrap_or(text);
        self.tokenizer.encode_fast(text, false).map_err(ComputeError::Tokenizer)
    }
}

/// The tokens left for a text beside `added` special tokens; `file` is for messages.
pub(super) fn text_tokens(
    max_tokens: usize,
    added: usize,
    file: &Path,
) -> Result<usize, LoadError> {
    match max_tokens.checked_sub(added) {
        None | Some(0) => Err(LoadError::Setting {
            file: file.to_owned(),
            setting: "the maximum number of tokens of a text",
            found: max_tokens,
            wanted: format!("more than the {added} special tokens"),
        }),
        Some(left) => Ok(left),
    }
}

#[cfg(test)]
mod tests;
