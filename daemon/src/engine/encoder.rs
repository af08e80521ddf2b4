//! Texts to token sequences, with the limits of the model rather than the tokenizer's own.

use std::path::{Path, PathBuf};

use tokenizers::{PreTokenizerWrapper, Tokenizer};

use super::folder::read_file;
use super::load_error::LoadError;
use super::model::{ComputeError, Sequence};

/// Text is read in pieces of about this size where that changes no token: the tokenizer keeps some
/// hundred bytes for each byte that it looks at, and most of a very long text is cut off anyway.
const PIECE_BYTES: usize = 16 << 10;

/// Blanks that end a word for certain. Other characters that count as white space, such as the
/// vertical tab, are control characters too, which BERT's normalizer takes out without a gap.
const BLANKS: [char; 5] = [' ', '\t', '\n', '\r', '\u{3000}'];

/// A tokenizer that is known to fit its model.
#[derive(Debug)]
pub(super) struct Encoder {
    tokenizer: Tokenizer,
    style: Style,
    /// Goes in front of every text, as part of it.
    prompt: String,
    /// Special tokens in front of a text and behind it.
    before: Vec<u32>,
    after: Vec<u32>,
    /// Tokens of the text itself, at most.
    max_tokens: usize,
    /// [`PIECE_BYTES`], or `None` where the tokens of a text are not those of its words.
    piece_bytes: Option<usize>,
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
    /// Of the file's bytes.
    pub(super) digest: [u8; 32],
    /// The largest number of a token.
    largest: u32,
}

impl RawTokenizer {
    /// Reads a `tokenizer.json`.
    pub(super) fn open(file: &Path) -> Result<Self, LoadError> {
        let bytes =
            read_file(file).map_err(|source| LoadError::Read { file: file.to_owned(), source })?;
        Self::parse(file, &bytes)
    }

    /// Takes the bytes of a `tokenizer.json`; `file` is for messages.
    pub(super) fn parse(file: &Path, bytes: &[u8]) -> Result<Self, LoadError> {
        let tokenizer = Tokenizer::from_bytes(bytes)
            .map_err(|source| LoadError::Tokenizer { file: file.to_owned(), source })?;
        // Here, since this runs beside the reading of the weights.
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        let digest = *blake3::hash(bytes).as_bytes();
        Ok(Self { file: file.to_owned(), tokenizer, digest, largest })
    }

    /// Fits the tokenizer to a model with `rows` token rows that reads `max_tokens`.
    pub(super) fn fit(
        mut self,
        rows: usize,
        max_tokens: usize,
        style: Style,
        prompt: String,
    ) -> Result<Encoder, LoadError> {
        self.tokenizer.with_padding(None);
        let failed = |source| LoadError::Tokenizer { file: self.file.clone(), source };
        self.tokenizer.with_truncation(None).map_err(failed)?;
        let (before, after) = if style.special_tokens {
            around(&self.tokenizer).map_err(failed)?
        } else {
            (vec![], vec![])
        };
        // Special tokens of the post-processor need not be in the vocabulary.
        let token = before.iter().chain(&after).copied().fold(self.largest, u32::max);
        if token as usize >= rows {
            return Err(LoadError::TokenizerTooLarge { file: self.file, token, rows });
        }
        let added = before.len() + after.len();
        if max_tokens <= added {
            return Err(LoadError::Setting {
                file: self.file,
                setting: "the tokens that a text may have",
                found: max_tokens,
                wanted: format!("more than the {added} special tokens"),
            });
        }
        let piece_bytes = reads_words(&self.tokenizer).then_some(PIECE_BYTES);
        let max_tokens = max_tokens - added;
        let tokenizer = self.tokenizer;
        Ok(Encoder { tokenizer, style, prompt, before, after, max_tokens, piece_bytes })
    }
}

/// The special tokens in front of a text and behind it.
fn around(tokenizer: &Tokenizer) -> tokenizers::Result<(Vec<u32>, Vec<u32>)> {
    let with = tokenizer.encode_fast("a", true)?;
    let is_special = |(_, special): &(&u32, &u32)| **special == 1;
    let marked = || with.get_ids().iter().zip(with.get_special_tokens_mask());
    let before: Vec<u32> = marked().take_while(is_special).map(|(id, _)| *id).collect();
    let behind = marked().skip(before.len()).skip_while(|marked| !is_special(marked));
    Ok((before, behind.map(|(id, _)| *id).collect()))
}

/// Whether the tokens of a text are those of its words, one after the other, whatever is beside
/// them: so it is with BERT's, unless a special token has a blank within.
fn reads_words(tokenizer: &Tokenizer) -> bool {
    let added = tokenizer.get_added_tokens_decoder();
    matches!(tokenizer.get_pre_tokenizer(), Some(PreTokenizerWrapper::BertPreTokenizer(_)))
        && !added.values().any(|token| token.content.contains(char::is_whitespace))
}

/// The end of the first piece of a text: in front of a blank, or all of it.
fn piece_end(text: &str, piece_bytes: usize) -> usize {
    let from = text.ceil_char_boundary(piece_bytes.max(1));
    text[from..].find(BLANKS).map_or(text.len(), |blank| from + blank)
}

impl Encoder {
    /// The tokens of a text.
    pub(super) fn encode(&self, text: &str) -> Result<Sequence, ComputeError> {
        let prompted;
        let mut text = text;
        if !self.prompt.is_empty() {
            prompted = self.prompt.clone() + text;
            text = &prompted;
        }
        if self.style.special_tokens {
            text = text.trim();
        }
        let mut ids = self.before.clone();
        let truncated = loop {
            let end = self.piece_bytes.map_or(text.len(), |bytes| piece_end(text, bytes));
            let (piece, rest) = text.split_at(end);
            let lowered = self.style.lower_case.then(|| piece.to_lowercase());
            let encoding = self
                .tokenizer
                .encode_fast(lowered.as_deref().unwrap_or(piece), false)
                .map_err(ComputeError::Tokenizer)?;
            let room = self.before.len() + self.max_tokens - ids.len();
            let tokens = encoding.get_ids();
            ids.extend_from_slice(&tokens[..tokens.len().min(room)]);
            if tokens.len() > room {
                break true;
            }
            if rest.is_empty() {
                break false;
            }
            text = rest;
        };
        ids.extend_from_slice(&self.after);
        Ok(Sequence { ids, truncated })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert_eq, prop_oneof, proptest};
    use proptest::strategy::{Just, Strategy};
    use tokenizers::TruncationParams;

    fn encoder(max_tokens: usize, style: Style) -> Encoder {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/bert-mean-norm");
        let file = Path::new(folder).join("tokenizer.json");
        let tokenizer = RawTokenizer::open(&file).unwrap();
        tokenizer.fit(100_000, max_tokens, style, String::new()).unwrap()
    }

    /// Words, blanks of all kinds, marks, special tokens and whatever else.
    fn text() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            "[a-zA-Z]{1,12}",
            "[ \\t\\n\u{b}\u{85}\u{a0}\u{2028}\u{3000}]{1,3}",
            "[.,;!\\[\\]]{1,3}",
            Just("[SEP]".to_owned()),
            Just("ΟΔΟΣ".to_owned()),
            Just("e\u{301}".to_owned()),
            Just("漢字。仮名".to_owned()),
            any::<char>().prop_map(String::from),
        ];
        prop::collection::vec(part, 0..60).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn tokens_do_not_depend_on_the_pieces(
            text in text(), piece in 1usize..40, max in 4usize..80, lower_case: bool,
        ) {
            let style = Style { special_tokens: true, lower_case };
            let mut encoder = encoder(max, style);
            encoder.piece_bytes = Some(piece);
            let pieces = encoder.encode(&text).unwrap();

            // As the library does it by itself, all at once.
            let mut whole = encoder.tokenizer.clone();
            let truncation = TruncationParams { max_length: max, ..TruncationParams::default() };
            whole.with_truncation(Some(truncation)).unwrap();
            let trimmed = text.trim();
            let read = if lower_case { trimmed.to_lowercase() } else { trimmed.to_owned() };
            let encoding = whole.encode_fast(read, true).unwrap();
            prop_assert_eq!(&pieces.ids, encoding.get_ids());
            prop_assert_eq!(pieces.truncated, !encoding.get_overflowing().is_empty());
        }
    }

    #[test]
    fn most_of_a_very_long_text_is_not_looked_at() {
        let text = "word ".repeat(PIECE_BYTES);
        assert!(piece_end(&text, PIECE_BYTES) < PIECE_BYTES + 5);
        assert_eq!(piece_end("   ", 1), 1);
        assert_eq!(piece_end("ä", 1), 2);
        assert_eq!(piece_end("", 1), 0);
        let encoder = encoder(16, Style { special_tokens: true, lower_case: false });
        assert_eq!(encoder.piece_bytes, Some(PIECE_BYTES));
        let sequence = encoder.encode(&text).unwrap();
        assert!(sequence.truncated && sequence.ids.len() == 16);
    }
}
