//! Where a long text may be cut so that its tokens are those of its pieces, one after the other.

use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

/// Text is read in pieces of about this size where that changes no token: the tokenizer keeps some
/// hundred bytes for each byte that it looks at, and most of a very long text is cut off anyway.
pub(crate) const PIECE_BYTES: usize = 16 << 10;

/// Where no place to cut comes for so long, the next best one is taken. Where there is none at all,
/// the rest up to the next one is not read: it belongs to a word so long that no token is its (BERT's
/// limit is 100 characters).
pub(crate) const LONGEST_WORD_BYTES: usize = 16 << 10;

/// Whether a character is a blank that ends a word for certain. Others that count as white space,
/// such as the vertical tab, are control characters too, which BERT's normalizer takes out without a
/// gap.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r') || (c.is_whitespace() && !c.is_control())
}

/// Marks that are words of their own for BERT, and that lower-casing does not look across (as it
/// does across the full stop, in search of the end of a Greek word).
pub(crate) const MARKS: [char; 8] = [',', ';', '!', '?', '(', ')', '/', '"'];

/// Other marks that are words of their own for BERT. Lower-casing may look across them, which shows
/// in nothing but a Greek letter before them.
const OTHER_MARKS: &str =
    ".:-_'@#$%&*+=<>[]{}|~^`\\、。，．：；！？「」『』（）【】《》〈〉・…—–―‘’“”«»·،؛؟।";

/// Where a text may be cut so that its tokens are those of its pieces.
#[derive(Debug, Clone)]
pub(crate) struct Cuts {
    /// [`PIECE_BYTES`], but for tests.
    pub(crate) piece_bytes: usize,
    /// [`LONGEST_WORD_BYTES`], but for tests.
    pub(crate) longest_word_bytes: usize,
    /// Those of [`MARKS`] that no special token has within.
    pub(crate) marks: Vec<char>,
    /// Those of [`OTHER_MARKS`].
    other_marks: Vec<char>,
    /// Whether each Chinese character is a word.
    pub(crate) splits_han: bool,
}

/// The first piece of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// What is read of it.
    pub(crate) read: usize,
    /// Where the next one begins.
    pub(crate) end: usize,
}

impl Cuts {
    /// `None` unless the tokens of a text are those of its words, one after the other, whatever is
    /// beside them: so it is with BERT's, unless a special token has a blank within.
    pub(crate) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let is_bert =
            matches!(tokenizer.get_pre_tokenizer(), Some(PreTokenizerWrapper::BertPreTokenizer(_)));
        let added = tokenizer.get_added_tokens_decoder();
        let in_added = |wanted: &dyn Fn(char) -> bool| {
            added.values().any(|token| token.content.contains(wanted))
        };
        if !is_bert || in_added(&char::is_whitespace) {
            return None;
        }
        let is_free = |mark: &char| !in_added(&|c| c == *mark);
        let splits_han = match tokenizer.get_normalizer() {
            Some(NormalizerWrapper::BertNormalizer(bert)) => bert.handle_chinese_chars,
            _ => false,
        };
        Some(Self {
            piece_bytes: PIECE_BYTES,
            longest_word_bytes: LONGEST_WORD_BYTES,
            marks: MARKS.into_iter().filter(is_free).collect(),
            other_marks: OTHER_MARKS.chars().filter(is_free).collect(),
            splits_han: splits_han && !in_added(&is_han),
        })
    }

    /// The first piece of a text: up to a blank, or behind a character that is a word by itself.
    pub(crate) fn first(&self, text: &str) -> Piece {
        let from = text.ceil_char_boundary(self.piece_bytes.max(1));
        let most = text.floor_char_boundary(from.saturating_add(self.longest_word_bytes));
        let mut next_best = None;
        let mut end = text.len();
        for (at, c) in text[from..].char_indices() {
            let (at, behind) = (from + at, from + at + c.len_utf8());
            if at >= most && next_best.is_some() {
                break;
            }
            if is_blank(c) {
                end = at;
                next_best = None;
                break;
            }
            if self.marks.contains(&c) || (self.splits_han && is_han(c)) {
                end = behind;
                next_best = None;
                break;
            }
            if next_best.is_none() && self.other_marks.contains(&c) {
                next_best = Some(behind);
            }
        }
        if let Some(next_best) = next_best.filter(|_| end > most) {
            end = next_best;
        }
        Piece { read: end.min(most.max(from)), end }
    }
}

/// The block of Chinese characters that every tokenizer of BERT's kind takes one by one.
fn is_han(c: char) -> bool {
    ('\u{4E00}'..='\u{9FFF}').contains(&c)
}
