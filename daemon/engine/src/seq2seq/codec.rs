//! Texts to tokens and tokens to texts, as transformers does both.

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use crate::api::embedding::{ComputeError, Sequence};
use crate::checkpoint::load_error::LoadError;
use crate::tokenizer::marian::MarianTokenizer;
use crate::tokenizer::{RawTokenizer, TruncationSide, around};

/// How much of a text is looked at first; where that gives too few tokens, twice as much.
const LEAST_BYTES: usize = 16 << 10;

/// What is looked at of a text for each token that it may have.
const BYTES_OF_A_TOKEN: usize = 64;

/// Tokens at the border of what was looked at that the rest of the text could have changed.
const UNSETTLED_TOKENS: usize = 64;

/// What is looked at of a text at most, however few its tokens are.
const MOST_BYTES: usize = 1 << 20;

/// A tokenizer as its files say, not yet fitted to a model.
#[derive(Debug)]
pub(crate) enum RawCodec {
    Library(Box<RawTokenizer>),
    Marian(Box<MarianTokenizer>),
}

/// What splits texts, and puts them together.
#[derive(Debug)]
enum Splitter {
    Library(Box<Tokenizer>),
    Marian(Box<MarianTokenizer>),
}

/// A tokenizer that is known to fit its model.
#[derive(Debug)]
pub(crate) struct Codec {
    splitter: Splitter,
    /// Special tokens in front of a text and behind it.
    before: Vec<u32>,
    after: Vec<u32>,
    side: TruncationSide,
    /// `clean_up_tokenization_spaces`.
    cleans_up: bool,
    /// Tokens that are text only together with those beside them, ascending.
    bytes: Vec<u32>,
}

impl Codec {
    /// Fits a tokenizer to a model with so many token rows.
    pub(crate) fn new(raw: RawCodec, rows: usize, config: &Value) -> Result<Self, LoadError> {
        let cleans_up = config["clean_up_tokenization_spaces"] == true;
        let said = |file: &Path| {
            let side = &config["truncation_side"];
            TruncationSide::said(side, &file.with_file_name("tokenizer_config.json"))
        };
        let (file, largest, codec) = match raw {
            RawCodec::Library(raw) => {
                let RawTokenizer { file, mut tokenizer, largest, .. } = *raw;
                let side = said(&file)?.unwrap_or_else(|| TruncationSide::of(&tokenizer));
                let failed = |source| LoadError::Tokenizer { file: file.clone(), source };
                tokenizer.with_padding(None);
                tokenizer.with_truncation(None).map_err(failed)?;
                let (before, after) = around(&tokenizer).map_err(failed)?;
                let bytes = byte_tokens(&tokenizer);
                let splitter = Splitter::Library(Box::new(tokenizer));
                (file, largest, Self { splitter, before, after, side, cleans_up, bytes })
            }
            RawCodec::Marian(tokenizer) => {
                let side = said(&tokenizer.file)?.unwrap_or_default();
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

    /// The tokens of a text, special ones included; the text is cut where they are more than
    /// `max_tokens`.
    pub(crate) fn encode(&self, text: &str, max_tokens: usize) -> Result<Sequence, ComputeError> {
        let added = self.before.len() + self.after.len();
        let room = max_tokens.saturating_sub(added);
        let mut bytes = room.saturating_mul(BYTES_OF_A_TOKEN).clamp(LEAST_BYTES, MOST_BYTES);
        loop {
            let read = self.side.part(text, bytes);
            let tokens = self.tokens(read)?;
            let is_part = read.len() < text.len();
            let is_enough = tokens.len() >= room.saturating_add(UNSETTLED_TOKENS);
            if is_part && !is_enough && bytes < MOST_BYTES {
                bytes = bytes.saturating_mul(2).min(MOST_BYTES);
                continue;
            }
            let mut ids = [&self.before[..], &tokens].concat();
            self.side.keep(&mut ids, self.before.len(), room);
            ids.extend_from_slice(&self.after);
            let truncated = is_part || tokens.len() > room;
            return Ok(Sequence { ids, truncated, ..Sequence::default() });
        }
    }

    /// How much of the text of tokens stays as it is whatever comes next. A run of bytes is one or
    /// several characters, or none at all, as it ends; and blanks are taken out by what is behind them.
    pub(crate) fn settled_bytes(&self, ids: &[u32], text: &str) -> Result<usize, ComputeError> {
        let is_byte = |id: &u32| self.bytes.binary_search(id).is_ok();
        let run = ids.iter().rev().take_while(|id| is_byte(id)).count();
        let mut settled = text.len();
        if run > 0 {
            let before = self.decode(&ids[..ids.len() - run])?;
            let pairs = before.char_indices().zip(text.chars());
            let other = pairs.into_iter().find(|((_, a), b)| a != b).map(|((at, _), _)| at);
            settled = other.unwrap_or(before.len()).min(text.len());
        }
        if self.cleans_up {
            settled = text[..settled].rfind(' ').unwrap_or(0);
        }
        Ok(settled)
    }

    /// The tokens of a text, and nothing around them.
    fn tokens(&self, text: &str) -> Result<Vec<u32>, ComputeError> {
        match &self.splitter {
            Splitter::Library(tokenizer) => {
                let encoding = tokenizer.encode_fast(text, false);
                Ok(encoding.map_err(ComputeError::Tokenizer)?.get_ids().to_vec())
            }
            Splitter::Marian(tokenizer) => Ok(tokenizer.encode(text)),
        }
    }

    /// The text of tokens, without special ones.
    pub(crate) fn decode(&self, ids: &[u32]) -> Result<String, ComputeError> {
        let text = match &self.splitter {
            Splitter::Library(tokenizer) => {
                tokenizer.decode(ids, true).map_err(ComputeError::Tokenizer)?
            }
            Splitter::Marian(tokenizer) => tokenizer.decode(ids),
        };
        Ok(if self.cleans_up { clean_up(text) } else { text })
    }
}

/// The tokens that stand for a byte, such as `<0x0A>`, ascending.
fn byte_tokens(tokenizer: &Tokenizer) -> Vec<u32> {
    let token = |byte: u8| tokenizer.token_to_id(&format!("<0x{byte:02X}>"));
    let mut tokens: Vec<u32> = (0..=u8::MAX).filter_map(token).collect();
    tokens.sort_unstable();
    tokens
}

/// Takes out blanks in front of marks and within contractions, the English way.
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
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::{Codec, LEAST_BYTES, RawCodec, RawTokenizer};

    fn raw(folder: &Path) -> RawCodec {
        let raw = RawTokenizer::open(&folder.join("tokenizer.json")).unwrap();
        RawCodec::Library(Box::new(raw))
    }

    fn codec(model: &str, config: &Value) -> Codec {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(model);
        Codec::new(raw(&data), 10_000, config).unwrap()
    }

    #[test]
    fn a_very_long_text_has_the_first_tokens_of_all_of_it() {
        let codec = codec("t5-relu-tied", &Value::Null);
        for part in ["one two three ", "word", "     ", "漢字"] {
            let text = format!("{}end", part.repeat(5 * LEAST_BYTES / part.len()));
            let whole = codec.tokens(&text).unwrap();
            for max in [1, 2, 40, 700, 1_000_000] {
                let got = codec.encode(&text, max).unwrap();
                let len = whole.len().min(max - 1);
                assert_eq!(got.ids[..len], whole[..len], "{part:?} {max}");
                assert_eq!(got.ids[len..], [1], "{part:?} {max}");
                assert_eq!(got.truncated, len < whole.len(), "{part:?} {max}");
            }
        }
    }

    #[test]
    fn a_text_loses_its_beginning_where_the_folder_says_so() {
        let codec = codec("t5-relu-tied", &json!({"truncation_side": "left"}));
        for part in ["one two three ", "word", "漢字"] {
            let text = format!("start{}end", part.repeat(5 * LEAST_BYTES / part.len()));
            let whole = codec.tokens(&text).unwrap();
            for max in [1, 2, 40, 700, 1_000_000] {
                let got = codec.encode(&text, max).unwrap();
                let (all, len) = (&whole, whole.len().min(max - 1));
                assert_eq!(got.ids[..len], all[all.len() - len..], "{part:?} {max}");
                assert_eq!((&got.ids[len..], got.truncated), (&[1][..], len < all.len()));
            }
        }
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/t5-relu-tied");
        let error =
            Codec::new(raw(&data), 10_000, &json!({"truncation_side": "both"})).unwrap_err();
        assert!(error.to_string().contains("both"), "{error}");
    }

    /// Everything that is settled at some token stays as it is.
    #[test]
    fn what_is_settled_is_not_taken_back() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let raw = RawTokenizer::open(&data.join("gemma3-mean-dense2/tokenizer.json")).unwrap();
        // One whose tokens for bytes are text by themselves only where they are whole characters.
        let raw = RawCodec::Library(Box::new(raw));
        let bytes = Codec::new(raw, 10_000, &Value::Null).unwrap();
        assert_eq!(bytes.bytes.len(), 256);
        let byte = |byte: usize| bytes.bytes[byte];
        let words = bytes.encode("hello word", 20).unwrap().ids;
        let ids = [&[byte(b':'.into()), byte(b'^'.into()), byte(0xE4), byte(0xF0)], &words[..]];
        let mut settled = String::new();
        let ids = ids.concat();
        for end in 1..=ids.len() {
            let text = bytes.decode(&ids[..end]).unwrap();
            let len = bytes.settled_bytes(&ids[..end], &text).unwrap();
            assert!(text[..len].starts_with(&settled), "{settled:?} is not of {text:?}");
            settled = text[..len].to_owned();
        }
        assert!(settled.contains("word"), "{settled:?}");

        let codec = codec("bart", &json!({"clean_up_tokenization_spaces": true}));
        for text in ["r ' . tan n", "do n't ' 've , it 's", "a ' ' b ? !", "x 're y"] {
            let ids = codec.encode(text, 100).unwrap().ids;
            let mut settled = String::new();
            for end in 1..=ids.len() {
                let text = codec.decode(&ids[..end]).unwrap();
                assert!(text.starts_with(&settled), "{settled:?} is not of {text:?}");
                let bytes = codec.settled_bytes(&ids[..end], &text).unwrap();
                if bytes > settled.len() {
                    text[..bytes].clone_into(&mut settled);
                }
            }
        }
    }

    #[test]
    fn blanks_before_marks_go_where_the_folder_says_so() {
        let text = "it 's what I do n't say , is it ?";
        let clean = "it's what I don't say, is it?";
        for (config, want) in [
            (json!({}), text),
            (json!({"clean_up_tokenization_spaces": false}), text),
            (json!({"clean_up_tokenization_spaces": true}), clean),
        ] {
            let codec = codec("bart", &config);
            let ids = codec.encode(text, 100).unwrap().ids;
            assert_eq!(codec.decode(&ids).unwrap(), want);
        }
    }
}
