//! Any bytes as the texts behind a request: a count, then the block.
#![no_main]

use emberd_protocol::{MAX_TEXTS, TextBlock, TextBuilder};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((count, block)) = bytes.split_first_chunk() else { return };
    let count = u32::from_le_bytes(*count);
    let parsed = TextBlock::parse(count, block.to_vec()).ok();
    let texts = parsed.as_ref().map(|texts| {
        assert_eq!(texts.get(texts.len()), None);
        (0..texts.len()).map(|at| texts.get(at).expect("it is one of them")).collect::<Vec<_>>()
    });
    assert_eq!(texts, by_the_book(count, block));

    if let (Some(parsed), Some(texts)) = (&parsed, texts) {
        assert_eq!(parsed.len_bytes(), texts.iter().map(|text| text.len()).sum());
        let mut builder = TextBuilder::default();
        for text in &texts {
            builder.push(text).expect("it came in a block, so it fits one");
        }
        assert_eq!(builder.into_bytes(), block);
    }
});

/// The same, slowly: each text cut off the front and checked by itself.
fn by_the_book(count: u32, block: &[u8]) -> Option<Vec<&str>> {
    if count > MAX_TEXTS {
        return None;
    }
    let (lengths, mut rest) = block.split_at_checked(count as usize * 4)?;
    let mut texts = Vec::new();
    for length in lengths.as_chunks::<4>().0 {
        let (text, behind) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        texts.push(std::str::from_utf8(text).ok()?);
        rest = behind;
    }
    rest.is_empty().then_some(texts)
}
