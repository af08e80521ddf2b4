//! Splits a long text into chunks whose tokens, one chunk after the other, are those of the text.

use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

/// Splits texts between words, for tokenizers that treat each word by itself.
#[derive(Debug, Clone)]
pub(super) struct Chunker {
    /// [`CHUNK_BYTES`], except in tests.
    pub(super) chunk_bytes: usize,
    /// [`LONGEST_WORD_BYTES`], except in tests.
    pub(super) longest_word_bytes: usize,
    /// The [`MARKS`] that are in no special token.
    pub(super) marks: Vec<char>,
    /// The [`OTHER_MARKS`] that are in no special token.
    other_marks: Vec<char>,
    /// Whether each Chinese character is a word.
    pub(super) splits_han: bool,
}

/// The first chunk of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Bytes to tokenize. Fewer than `next` only within a word that is too long to be a token.
    pub(super) len: usize,
    /// Where the next chunk begins.
    pub(super) next: usize,
}

/// The approximate size of a chunk. The tokenizer keeps some hundred bytes for each byte of text, and
/// most of a very long text is truncated anyway.
pub(super) const CHUNK_BYTES: usize = 16 << 10;

/// After this many bytes without a certain boundary, a likely one is used. Without any boundary, the
/// rest of the word is skipped: a word this long has no token (BERT's limit is 100 characters).
pub(super) const LONGEST_WORD_BYTES: usize = 16 << 10;

/// Marks that are words of their own for BERT, and that lower-casing does not look across. (It looks
/// across a full stop, to find the end of a Greek word.)
pub(super) const MARKS: [char; 8] = [',', ';', '!', '?', '(', ')', '/', '"'];

/// Other marks that are words of their own for BERT. Lower-casing may look across them, which affects
/// nothing but a Greek letter in front of them.
const OTHER_MARKS: &str =
    ".:-_'@#$%&*+=<>[]{}|~^`\\、。，．：；！？「」『』（）【】《》〈〉・…—–―‘’“”«»·،؛؟।";

impl Chunker {
    /// `None` unless each word of a text is tokenized independently of the words around it. This holds
    /// for BERT's pre-tokenizer, unless a special token contains white space.
    pub(super) fn of(tokenizer: &Tokenizer) -> Option<Self> {
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
            chunk_bytes: CHUNK_BYTES,
            longest_word_bytes: LONGEST_WORD_BYTES,
            marks: MARKS.into_iter().filter(is_free).collect(),
            other_marks: OTHER_MARKS.chars().filter(is_free).collect(),
            splits_han: splits_han && !in_added(&is_han),
        })
    }

    /// The first chunk of a text. It ends at white space, or behind a character that is a word by
    /// itself.
    pub(super) fn first(&self, text: &str) -> Chunk {
        let from = text.ceil_char_boundary(self.chunk_bytes.max(1));
        let most = text.floor_char_boundary(from.saturating_add(self.longest_word_bytes));
        let mut next_best = None;
        let mut end = text.len();
        for (at, c) in text[from..].char_indices() {
            let (at, behind) = (from + at, from + at + c.len_utf8());
            if at >= most && next_best.is_some() {
                break;
            }
            if ends_word(c) {
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
        Chunk { len: end.min(most.max(from)), next: end }
    }
}

/// Whether a character is white space that certainly ends a word. Other white space, such as the
/// vertical tab, is a control character as well, which BERT's normalizer removes without a gap.
fn ends_word(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r') || (c.is_whitespace() && !c.is_control())
}

/// The block of Chinese characters that every BERT tokenizer splits into single characters.
fn is_han(c: char) -> bool {
    ('\u{4E00}'..='\u{9FFF}').contains(&c)
}
