//! Texts behind a request.
//!
//! # The bound on memory
//! Checking a block of `n` bytes takes at most `n + 256` further bytes: a `u32` for each length
//! that arrived. The texts stay where they are.

use crate::allocation::peak_bytes;
use emberd_protocol::{MAX_TEXTS, TextBlock, TextBlockError, TextBuilder};
use proptest::prelude::{any, prop, prop_assert_eq, proptest};

fn block(lengths: &[u32], texts: &[u8]) -> Vec<u8> {
    let lengths = lengths.iter().flat_map(|len| len.to_le_bytes());
    lengths.chain(texts.iter().copied()).collect()
}

fn build<T: AsRef<str>>(texts: &[T]) -> Vec<u8> {
    let mut builder = TextBuilder::default();
    for text in texts {
        builder.push(text.as_ref()).unwrap();
    }
    assert_eq!(builder.count() as usize, texts.len());
    builder.into_bytes()
}

/// Parses, and checks what holds for all bytes.
fn parse_whatever_it_is(count: u32, bytes: &[u8]) -> Result<TextBlock, TextBlockError> {
    let owned = bytes.to_vec();
    let (result, peak) = peak_bytes(|| TextBlock::parse(count, owned));
    assert!(peak <= bytes.len() + 256, "{peak} bytes for {} ({count} texts)", bytes.len());
    if let Ok(texts) = &result {
        assert_eq!(texts.len(), count as usize);
        assert_eq!(texts.get(texts.len()), None);
        let all: Vec<_> = (0..texts.len()).map(|at| texts.get(at).unwrap()).collect();
        assert_eq!(texts.len_bytes(), all.iter().map(|text| text.len()).sum());
        assert_eq!(build(&all), bytes);
    }
    result
}

#[test]
fn an_empty_block_and_empty_texts_are_texts() {
    assert!(parse_whatever_it_is(0, &[]).unwrap().is_empty());
    let texts = parse_whatever_it_is(3, &block(&[0, 2, 0], b"ab")).unwrap();
    assert_eq!([0, 1, 2].map(|at| texts.get(at)), [Some(""), Some("ab"), Some("")]);
    assert!(!texts.is_empty());
}

#[test]
fn lengths_that_do_not_add_up_are_refused() {
    let refused = [
        (0, b"x".to_vec()),
        (1, vec![]),
        (1, vec![0; 3]),
        (2, block(&[1], b"a")),
        (1, block(&[2], b"a")),
        (1, block(&[0], b"a")),
        (2, block(&[1, 1], b"a")),
        // Sums over 32 bits must not wrap into something that fits.
        (2, block(&[u32::MAX, 2], b"a")),
        (2, block(&[1, u32::MAX], b"")),
        (4, block(&[1 << 31, 1 << 31, 1 << 31, 1 << 31], b"")),
        (MAX_TEXTS, block(&[1], b"a")),
    ];
    for (count, bytes) in refused {
        let result = parse_whatever_it_is(count, &bytes);
        assert_eq!(result, Err(TextBlockError::LengthsDoNotFit), "{count} texts in {bytes:?}");
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_refused_and_so_is_a_split_character() {
    for bytes in [&b"\xFF"[..], b"a\xC3", b"\xED\xA0\x80", b"\xC0\xAF", b"\xF4\x90\x80\x80"] {
        let len = u32::try_from(bytes.len()).unwrap();
        let result = parse_whatever_it_is(1, &block(&[len], bytes));
        assert_eq!(result, Err(TextBlockError::NotUtf8), "{bytes:?}");
    }
    for (index, lengths) in [(0, [1, 2, 4]), (1, [3, 1, 3]), (1, [0, 1, 6])] {
        let result = parse_whatever_it_is(3, &block(&lengths, "ßaßé".as_bytes()));
        assert_eq!(result, Err(TextBlockError::SplitCharacter { index }), "{lengths:?}");
    }
    let texts = parse_whatever_it_is(3, &block(&[2, 1, 4], "ßaßé".as_bytes())).unwrap();
    assert_eq!([0, 1, 2].map(|at| texts.get(at)), [Some("ß"), Some("a"), Some("ßé")]);
}

#[test]
fn the_most_texts_go_through_and_one_more_does_not() {
    let mut builder = TextBuilder::default();
    for _ in 0..MAX_TEXTS {
        builder.push("").unwrap();
    }
    let too_many = TextBlockError::TooMany { count: u64::from(MAX_TEXTS) + 1 };
    assert_eq!(builder.push(""), Err(too_many.clone()));
    assert_eq!(builder.count(), MAX_TEXTS);
    let bytes = builder.into_bytes();
    assert_eq!(parse_whatever_it_is(MAX_TEXTS, &bytes).unwrap().len(), MAX_TEXTS as usize);
    let more = [&bytes[..], &[0; 4]].concat();
    assert_eq!(parse_whatever_it_is(MAX_TEXTS + 1, &more), Err(too_many));
    let count = u64::from(u32::MAX);
    assert_eq!(parse_whatever_it_is(u32::MAX, &bytes), Err(TextBlockError::TooMany { count }));
}

#[test]
fn texts_are_not_shown_in_logs() {
    let texts = TextBlock::parse(1, build(&["secret"])).unwrap();
    assert_eq!(format!("{texts:?}"), "TextBlock(1 texts, 6 bytes)");
}

proptest! {
    #[test]
    fn any_strings_come_back(texts in prop::collection::vec(any::<String>(), 0..40)) {
        let bytes = build(&texts);
        let count = u32::try_from(texts.len()).unwrap();
        let block = parse_whatever_it_is(count, &bytes).unwrap();
        let back: Vec<_> = (0..block.len()).map(|at| block.get(at).unwrap().to_owned()).collect();
        prop_assert_eq!(back, texts);
    }

    #[test]
    fn random_blocks_never_panic_and_stay_within_the_bound(
        count: u32,
        few in 0..6u32,
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = parse_whatever_it_is(count, &bytes);
        let _ = parse_whatever_it_is(few, &bytes);
    }

    #[test]
    fn blocks_with_a_change_never_panic_and_stay_within_the_bound(
        texts in prop::collection::vec(any::<String>(), 1..10),
        at in any::<prop::sample::Index>(),
        byte: u8,
        more in -1..=1i32,
    ) {
        let mut bytes = build(&texts);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let count = u32::try_from(texts.len()).unwrap().saturating_add_signed(more);
        let _ = parse_whatever_it_is(count, &bytes);
    }
}
