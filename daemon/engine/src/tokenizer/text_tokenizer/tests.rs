use std::path::Path;

use proptest::prelude::{any, prop, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::{Just, Strategy};
use tokenizers::{Tokenizer, TruncationParams};

use super::{MAX_PREFIX_BYTES, TextTokenizer};
use crate::checkpoint::truncation_side::TruncationSide;
use crate::tokenizer::chunks::{CHUNK_BYTES, Chunk, LONGEST_WORD_BYTES, MARKS};
use crate::tokenizer::open::TokenizerFile;
use crate::tokenizer::options::TokenizeOptions;

const PLAIN: TokenizeOptions = TokenizeOptions {
    special_tokens: true,
    lower_case: false,
    pools_prompt: true,
    side: None,
    tells_segments: true,
};

fn tokenizer(max_tokens: usize, options: TokenizeOptions) -> TextTokenizer {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/bert-mean-norm");
    let file = Path::new(folder).join("tokenizer.json");
    let tokenizer = TokenizerFile::open(&file).unwrap();
    tokenizer.fit(100_000, max_tokens, options, String::new()).unwrap()
}

/// Words, white space of all kinds, marks, special tokens and any other character.
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
    fn tokens_do_not_depend_on_the_chunks(
        text in text(), chunk in 1usize..40, max in 4usize..80, lower_case: bool,
    ) {
        let options = TokenizeOptions { lower_case, ..PLAIN };
        let mut tokenizer = tokenizer(max, options);
        let chunker = tokenizer.chunker.as_mut().unwrap();
        chunker.chunk_bytes = chunk;
        assert!(chunker.splits_han && chunker.marks.len() == MARKS.len());
        let by_chunks = tokenizer.tokenize(&text).unwrap();

        // The whole text at once, truncated by the library.
        let mut whole = Tokenizer::clone(&tokenizer.tokenizer);
        let truncation = TruncationParams { max_length: max, ..TruncationParams::default() };
        whole.with_truncation(Some(truncation)).unwrap();
        let trimmed = text.trim();
        let input = if lower_case { trimmed.to_lowercase() } else { trimmed.to_owned() };
        let encoding = whole.encode_fast(input, true).unwrap();
        prop_assert_eq!(&by_chunks.ids, encoding.get_ids());
        prop_assert_eq!(by_chunks.truncated, !encoding.get_overflowing().is_empty());
    }
}

#[test]
fn most_of_a_very_long_text_is_not_tokenized() {
    let tokenizer = tokenizer(16, PLAIN);
    for part in ["word ", "word,", ",", "漢", " ", "word"] {
        let text = part.repeat(40 * CHUNK_BYTES / part.len());
        let chunk = tokenizer.chunker.as_ref().unwrap().first(&text);
        assert!(chunk.len <= CHUNK_BYTES + LONGEST_WORD_BYTES, "{part:?}: {chunk:?}");
        let is_one_word = part == "word";
        assert_eq!(chunk.next == text.len(), is_one_word, "{part:?}: {chunk:?}");
        let sequence = tokenizer.tokenize(&text).unwrap();
        // White space alone is no word, and a word without end is the unknown token.
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
fn chunks_end_between_words() {
    let tokenizer = tokenizer(16, PLAIN);
    let mut chunker = tokenizer.chunker.unwrap();
    (chunker.chunk_bytes, chunker.longest_word_bytes) = (1, 4);
    let chunk = |len, next| Chunk { len, next };
    assert_eq!(chunker.first("   "), chunk(1, 1));
    assert_eq!(chunker.first("ä"), chunk(2, 2));
    assert_eq!(chunker.first("abc,d"), chunk(4, 4));
    assert_eq!(chunker.first("ab漢d"), chunk(5, 5));
    assert_eq!(chunker.first("abcdefgh,i"), chunk(5, 9));
    assert_eq!(chunker.first(""), chunk(0, 0));
}

#[test]
fn a_tokenizer_without_chunks_looks_at_a_text_until_it_has_enough_tokens() {
    let mut tokenizer = tokenizer(16, PLAIN);
    let text = format!("first{}last", " ".repeat(20 * CHUNK_BYTES));
    let whole = tokenizer.tokenize("first last").unwrap();
    tokenizer.chunker = None;
    assert_eq!(tokenizer.tokenize(&text).unwrap(), whole);
    let words = "word ".repeat(CHUNK_BYTES);
    let cut = tokenizer.tokenize(&words).unwrap();
    assert_eq!((cut.ids.len(), cut.truncated), (16, true));
    tokenizer.side = TruncationSide::Left;
    assert_eq!(tokenizer.tokenize(&text).unwrap(), whole);
    assert!(tokenizer.tokenize(&words).unwrap().truncated);
    // Up to a limit.
    let far = format!("first{}last", " ".repeat(2 * MAX_PREFIX_BYTES));
    let cut = tokenizer.tokenize(&far).unwrap();
    assert_eq!((cut.ids.len(), cut.truncated), (3, true));
}

/// Marks that may not end a word are still better boundaries than none.
#[test]
fn a_long_text_without_blanks_is_tokenized_to_its_end() {
    let tokenizer = tokenizer(1_000_000, PLAIN);
    for (one, other) in [("cat.", "dog."), ("red-", "blue-"), ("cat_", "dog_"), ("あい。", "cat。")]
    {
        let text = format!("{}{}", one.repeat(10_000), other.repeat(8_000));
        let sequence = tokenizer.tokenize(&text).unwrap();
        let each = |text: &str| tokenizer.tokenize(text).unwrap().ids.len() - 2;
        let tokens = 10_000 * each(one) + 8_000 * each(other) + 2;
        assert_eq!((sequence.ids.len(), sequence.truncated), (tokens, false), "{one}");
    }
    for blank in ["\u{a0}", "\u{2003}", "\u{2028}"] {
        let sequence = tokenizer.tokenize(&format!("a{}b", blank.repeat(30_000))).unwrap();
        assert_eq!(sequence.ids, tokenizer.tokenize("a b").unwrap().ids, "{blank:?}");
    }
}
