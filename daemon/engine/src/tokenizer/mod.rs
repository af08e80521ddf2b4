//! Texts to token sequences, with the limits of the model rather than the tokenizer's own.

pub(crate) mod chunks;
pub(crate) mod marian;
pub(crate) mod memory_need;
pub(crate) mod pair;
pub(crate) mod sentencepiece;
pub(crate) mod truncation;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenizers::Tokenizer;

use crate::api::embedding::{ComputeError, Sequence};
use crate::checkpoint::folder::read_file;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::text_limits::TextLimits;
use crate::tokenizer::chunks::{Cuts, PIECE_BYTES, Piece};
use crate::tokenizer::pair::PairTemplate;
use crate::tokenizer::sentencepiece::T5Files;
pub(crate) use crate::tokenizer::truncation::TruncationSide;

/// What is read first for each token that a text may have, where it cannot be read in pieces.
const BYTES_OF_A_TOKEN: usize = 64;

/// What is read of a text at most that cannot be read in pieces, however few its tokens are.
const MOST_BYTES: usize = 1 << 20;

/// Tokens at the border of what was read that the rest of the text could have changed.
const UNSETTLED_TOKENS: usize = 64;

/// A tokenizer that is known to fit its model.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// Shared by those that read the same texts within other limits.
    tokenizer: Arc<Tokenizer>,
    style: Style,
    /// Goes in front of a text where no other prompt is given.
    prompt: String,
    /// The numbers of special tokens, ascending. Only for prompts that are not pooled.
    special: Vec<u32>,
    /// Special tokens in front of a text and behind it.
    before: Vec<u32>,
    after: Vec<u32>,
    /// How two texts are put together, if the tokenizer does it.
    pair: Option<PairTemplate>,
    /// Tokens of the text itself, at most.
    max_tokens: usize,
    /// Which end of a text goes where it has more.
    side: TruncationSide,
    /// Which one by the tokenizer's own file.
    own_side: TruncationSide,
    /// Where a text may be cut, or `None` where its tokens are not those of its words.
    cuts: Option<Cuts>,
}

/// How a kind of model wants its texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    /// Special tokens around the text, and no blanks around it before that.
    pub(crate) special_tokens: bool,
    /// Lower case before the tokenizer sees it.
    pub(crate) lower_case: bool,
    /// Whether a prompt's tokens are pooled like others.
    pub(crate) pools_prompt: bool,
    /// Which end of a text is cut off; `None` as the tokenizer's file says.
    pub(crate) side: Option<TruncationSide>,
    /// Whether the tokens of the second text of a pair are of another segment.
    pub(crate) tells_segments: bool,
}

impl Style {
    /// That of a transformer.
    pub(crate) fn of(limits: TextLimits, pools_prompt: bool) -> Self {
        let TextLimits { lower_case, side, tells_segments, .. } = limits;
        Self { special_tokens: true, lower_case, pools_prompt, side, tells_segments }
    }
}

/// A tokenizer as its file says, not yet fitted to a model.
#[derive(Debug)]
pub(crate) struct RawTokenizer {
    pub(crate) file: PathBuf,
    pub(crate) tokenizer: Tokenizer,
    /// Of the file's bytes.
    pub(crate) digest: [u8; 32],
    /// The largest number of a token.
    pub(crate) largest: u32,
}

impl RawTokenizer {
    /// Reads a `tokenizer.json`.
    pub(crate) fn open(file: &Path) -> Result<Self, LoadError> {
        let bytes =
            read_file(file).map_err(|source| LoadError::Read { file: file.to_owned(), source })?;
        Self::parse(file, &bytes)
    }

    /// Takes the bytes of a `tokenizer.json`; `file` is for messages.
    pub(crate) fn parse(file: &Path, bytes: &[u8]) -> Result<Self, LoadError> {
        let tokenizer = Tokenizer::from_bytes(bytes)
            .map_err(|source| LoadError::Tokenizer { file: file.to_owned(), source })?;
        Ok(Self::new(file, tokenizer, *blake3::hash(bytes).as_bytes()))
    }

    /// Reads the tokenizer of a folder with a model of the given kind: its `tokenizer.json`, or what
    /// it is made from for a T5 that has none.
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

    /// Makes the tokenizer of a T5 that has no `tokenizer.json`.
    pub(crate) fn of_t5(files: &T5Files) -> Result<Self, LoadError> {
        Ok(Self::new(&files.file, files.tokenizer()?, files.digest()))
    }

    fn new(file: &Path, tokenizer: Tokenizer, digest: [u8; 32]) -> Self {
        // Here, since this runs beside the reading of the weights.
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        Self { file: file.to_owned(), tokenizer, digest, largest }
    }

    /// Fits the tokenizer to a model with `rows` token rows that reads `max_tokens`.
    pub(crate) fn fit(
        mut self,
        rows: usize,
        max_tokens: usize,
        style: Style,
        prompt: String,
    ) -> Result<Encoder, LoadError> {
        let own_side = TruncationSide::of(&self.tokenizer);
        let side = style.side.unwrap_or(own_side);
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
        let max_tokens = room(max_tokens, before.len() + after.len(), &self.file)?;
        let cuts = Cuts::of(&self.tokenizer);
        let tokens = self.tokenizer.get_added_tokens_decoder();
        let special = tokens.into_iter().filter(|(_, token)| token.special);
        let mut special: Vec<u32> = special.map(|(id, _)| id).collect();
        special.sort_unstable();
        let pair = PairTemplate::of(&self.tokenizer).ok().filter(|_| style.special_tokens);
        let pair = pair.map(|pair| pair.telling(style.tells_segments));
        let tokenizer = Arc::new(self.tokenizer);
        Ok(Encoder {
            tokenizer,
            style,
            prompt,
            special,
            before,
            after,
            pair,
            max_tokens,
            side,
            own_side,
            cuts,
        })
    }
}

/// Tokens that a text itself may have beside the special ones; `file` is for messages.
fn room(max_tokens: usize, added: usize, file: &Path) -> Result<usize, LoadError> {
    match max_tokens.checked_sub(added) {
        None | Some(0) => Err(LoadError::Setting {
            file: file.to_owned(),
            setting: "the tokens that a text may have",
            found: max_tokens,
            wanted: format!("more than the {added} special tokens"),
        }),
        Some(room) => Ok(room),
    }
}

/// The special tokens in front of a text and behind it.
pub(crate) fn around(tokenizer: &Tokenizer) -> tokenizers::Result<(Vec<u32>, Vec<u32>)> {
    let with = tokenizer.encode_fast("a", true)?;
    let is_special = |(_, special): &(&u32, &u32)| **special == 1;
    let marked = || with.get_ids().iter().zip(with.get_special_tokens_mask());
    let before: Vec<u32> = marked().take_while(is_special).map(|(id, _)| *id).collect();
    let behind = marked().skip(before.len()).skip_while(|marked| !is_special(marked));
    Ok((before, behind.map(|(id, _)| *id).collect()))
}

impl Encoder {
    /// One over the same tokenizer that reads pairs within other limits, without a prompt.
    pub(crate) fn of_other_limits(
        &self,
        limits: TextLimits,
        file: &Path,
    ) -> Result<Self, LoadError> {
        let style = Style::of(limits, true);
        let pair = self.pair.clone().map(|pair| pair.telling(style.tells_segments));
        Ok(Self {
            tokenizer: Arc::clone(&self.tokenizer),
            max_tokens: room(limits.max_tokens, self.before.len() + self.after.len(), file)?,
            side: style.side.unwrap_or(self.own_side),
            style,
            prompt: String::new(),
            special: self.special.clone(),
            before: self.before.clone(),
            after: self.after.clone(),
            pair,
            own_side: self.own_side,
            cuts: self.cuts.clone(),
        })
    }

    /// The tokens of a text behind the usual prompt.
    pub(crate) fn encode(&self, text: &str) -> Result<Sequence, ComputeError> {
        self.encode_prompted(&self.prompt, text)
    }

    /// The tokens of a text behind a prompt, which is read as part of it.
    pub(crate) fn encode_prompted(
        &self,
        prompt: &str,
        text: &str,
    ) -> Result<Sequence, ComputeError> {
        if prompt.is_empty() {
            return self.read(text);
        }
        let mut sequence = self.read(&format!("{prompt}{text}"))?;
        if !self.style.pools_prompt {
            sequence.unpooled = self.prompt_len(prompt)?.min(sequence.ids.len());
        }
        Ok(sequence)
    }

    /// How many tokens at the front of a text count as the prompt's: as many as it has by itself,
    /// the special token at its end left out. So sentence-transformers counts, even where prompt and
    /// text meet in one token.
    fn prompt_len(&self, prompt: &str) -> Result<usize, ComputeError> {
        let ids = self.read(prompt)?.ids;
        let ends = ids.last().is_some_and(|last| self.special.binary_search(last).is_ok());
        Ok(ids.len() - usize::from(ends))
    }

    fn read(&self, text: &str) -> Result<Sequence, ComputeError> {
        self.encode_untrimmed(if self.style.special_tokens { text.trim() } else { text })
    }

    /// The tokens of a text with the blanks around it, and without a prompt.
    pub(crate) fn encode_untrimmed(&self, text: &str) -> Result<Sequence, ComputeError> {
        self.encode_at_most(text, usize::MAX)
    }

    /// The same, and no more than so many tokens, the special ones among them.
    pub(crate) fn encode_at_most(&self, text: &str, most: usize) -> Result<Sequence, ComputeError> {
        let room = most.saturating_sub(self.before.len() + self.after.len());
        let mut ids = self.before.clone();
        let truncated = self.append(text, room.min(self.max_tokens), &mut ids)?;
        ids.extend_from_slice(&self.after);
        Ok(Sequence { ids, truncated, ..Sequence::default() })
    }

    /// The number of a token that the vocabulary spells like this.
    pub(crate) fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// A token as text; nothing for one that the tokenizer does not know.
    pub(crate) fn token_text(&self, id: u32) -> String {
        self.tokenizer.decode(&[id], false).unwrap_or_default()
    }

    /// Appends the tokens of a text, at most so many; answers whether some were left out.
    fn append(&self, text: &str, most: usize, ids: &mut Vec<u32>) -> Result<bool, ComputeError> {
        match &self.cuts {
            Some(cuts) => self.append_pieces(cuts, text, most, ids),
            None => self.append_part(text, most, ids),
        }
    }

    /// The same, piece by piece.
    fn append_pieces(
        &self,
        cuts: &Cuts,
        mut text: &str,
        most: usize,
        ids: &mut Vec<u32>,
    ) -> Result<bool, ComputeError> {
        let (start, mut is_cut) = (ids.len(), false);
        loop {
            let Piece { read, end: next } = cuts.first(text);
            is_cut |= read < next;
            let (piece, rest) = (&text[..read], &text[next..]);
            ids.extend_from_slice(self.tokens(piece)?.get_ids());
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

    /// The same, from a part that has enough tokens.
    fn append_part(
        &self,
        text: &str,
        most: usize,
        ids: &mut Vec<u32>,
    ) -> Result<bool, ComputeError> {
        let start = ids.len();
        let enough = most.saturating_add(UNSETTLED_TOKENS);
        let mut bytes = most.saturating_mul(BYTES_OF_A_TOKEN).clamp(PIECE_BYTES, MOST_BYTES);
        loop {
            let part = self.side.part(text, bytes);
            let encoding = self.tokens(part)?;
            let tokens = encoding.get_ids();
            let is_part = part.len() < text.len();
            if is_part && tokens.len() < enough && bytes < MOST_BYTES {
                bytes = bytes.saturating_mul(2).min(MOST_BYTES);
                continue;
            }
            ids.extend_from_slice(tokens);
            self.side.keep(ids, start, most);
            return Ok(is_part || tokens.len() > most);
        }
    }

    fn tokens(&self, text: &str) -> Result<tokenizers::Encoding, ComputeError> {
        let lowered = self.style.lower_case.then(|| text.to_lowercase());
        let text = lowered.as_deref().unwrap_or(text);
        self.tokenizer.encode_fast(text, false).map_err(ComputeError::Tokenizer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::chunks::{LONGEST_WORD_BYTES, MARKS};
    use proptest::prelude::{any, prop, prop_assert_eq, prop_oneof, proptest};
    use proptest::strategy::{Just, Strategy};
    use tokenizers::TruncationParams;

    const PLAIN: Style = Style {
        special_tokens: true,
        lower_case: false,
        pools_prompt: true,
        side: None,
        tells_segments: true,
    };

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
            let style = Style { lower_case, ..PLAIN };
            let mut encoder = encoder(max, style);
            let cuts = encoder.cuts.as_mut().unwrap();
            cuts.piece_bytes = piece;
            assert!(cuts.splits_han && cuts.marks.len() == MARKS.len());
            let pieces = encoder.encode(&text).unwrap();

            // As the library does it by itself, all at once.
            let mut whole = Tokenizer::clone(&encoder.tokenizer);
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
        let encoder = encoder(16, PLAIN);
        for part in ["word ", "word,", ",", "漢", " ", "word"] {
            let text = part.repeat(40 * PIECE_BYTES / part.len());
            let piece = encoder.cuts.as_ref().unwrap().first(&text);
            assert!(piece.read <= PIECE_BYTES + LONGEST_WORD_BYTES, "{part:?}: {piece:?}");
            let is_one_word = part == "word";
            assert_eq!(piece.end == text.len(), is_one_word, "{part:?}: {piece:?}");
            let sequence = encoder.encode(&text).unwrap();
            // Blanks alone are no word, and a word without end is the unknown one.
            let tokens = if part == " " {
                2
            } else if is_one_word {
                3
            } else {
                16
            };
            assert_eq!((sequence.ids.len(), sequence.truncated), (tokens, part != " "), "{part:?}");
        }
    }

    #[test]
    fn the_places_to_cut_are_between_words() {
        let encoder = encoder(16, PLAIN);
        let mut cuts = encoder.cuts.unwrap();
        (cuts.piece_bytes, cuts.longest_word_bytes) = (1, 4);
        let piece = |read, end| Piece { read, end };
        assert_eq!(cuts.first("   "), piece(1, 1));
        assert_eq!(cuts.first("ä"), piece(2, 2));
        assert_eq!(cuts.first("abc,d"), piece(4, 4));
        assert_eq!(cuts.first("ab漢d"), piece(5, 5));
        assert_eq!(cuts.first("abcdefgh,i"), piece(5, 9));
        assert_eq!(cuts.first(""), piece(0, 0));
    }

    #[test]
    fn a_tokenizer_of_another_kind_reads_as_much_as_has_enough_tokens() {
        let mut encoder = encoder(16, PLAIN);
        let text = format!("first{}last", " ".repeat(20 * PIECE_BYTES));
        let whole = encoder.encode("first last").unwrap();
        encoder.cuts = None;
        assert_eq!(encoder.encode(&text).unwrap(), whole);
        let words = "word ".repeat(PIECE_BYTES);
        let cut = encoder.encode(&words).unwrap();
        assert_eq!((cut.ids.len(), cut.truncated), (16, true));
        encoder.side = TruncationSide::Left;
        assert_eq!(encoder.encode(&text).unwrap(), whole);
        assert!(encoder.encode(&words).unwrap().truncated);
        // There is an end to it.
        let far = format!("first{}last", " ".repeat(2 * MOST_BYTES));
        let cut = encoder.encode(&far).unwrap();
        assert_eq!((cut.ids.len(), cut.truncated), (3, true));
    }

    /// Marks that are no sure places to cut are better than none.
    #[test]
    fn a_long_text_without_blanks_is_read_to_its_end() {
        let encoder = encoder(1_000_000, PLAIN);
        for (one, other) in
            [("cat.", "dog."), ("red-", "blue-"), ("cat_", "dog_"), ("あい。", "cat。")]
        {
            let text = format!("{}{}", one.repeat(10_000), other.repeat(8_000));
            let sequence = encoder.encode(&text).unwrap();
            let each = |text: &str| encoder.encode(text).unwrap().ids.len() - 2;
            let tokens = 10_000 * each(one) + 8_000 * each(other) + 2;
            assert_eq!((sequence.ids.len(), sequence.truncated), (tokens, false), "{one}");
        }
        for blank in ["\u{a0}", "\u{2003}", "\u{2028}"] {
            let sequence = encoder.encode(&format!("a{}b", blank.repeat(30_000))).unwrap();
            assert_eq!(sequence.ids, encoder.encode("a b").unwrap().ids, "{blank:?}");
        }
    }
}
