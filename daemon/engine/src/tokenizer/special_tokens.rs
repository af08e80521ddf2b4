//! The special tokens that a tokenizer puts around a text.

use tokenizers::Tokenizer;

/// The special tokens in front of a text, and those behind it.
pub(crate) fn surrounding_special_tokens(
    tokenizer: &Tokenizer,
) -> tokenizers::Result<(Vec<u32>, Vec<u32>)> {
    let with = tokenizer.encode_fast("a", true)?;
    let is_special = |(_, special): &(&u32, &u32)| **special == 1;
    let marked = || with.get_ids().iter().zip(with.get_special_tokens_mask());
    let before: Vec<u32> = marked().take_while(is_special).map(|(id, _)| *id).collect();
    let behind = marked().skip(before.len()).skip_while(|marked| !is_special(marked));
    Ok((before, behind.map(|(id, _)| *id).collect()))
}
