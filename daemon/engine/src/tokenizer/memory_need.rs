//! How much memory a tokenizer takes, estimated from its file.

/// Bytes in memory for each byte of `tokenizer.json`: each word is in two tables.
pub(crate) const TOKENIZER_TIMES_FILE: u64 = 25;

/// The same for a tokenizer of the kind `Unigram`, which also has a node for each prefix of a word.
const UNIGRAM_TIMES_FILE: u64 = 50;

/// Bytes in memory of the tokenizer with this `tokenizer.json`.
pub(crate) fn tokenizer_need(json: &[u8]) -> u64 {
    let is_unigram = [&br#""type":"Unigram""#[..], br#""type": "Unigram""#]
        .iter()
        .any(|kind| json.windows(kind.len()).any(|window| window == *kind));
    let times = if is_unigram { UNIGRAM_TIMES_FILE } else { TOKENIZER_TIMES_FILE };
    times.saturating_mul(json.len() as u64)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{TOKENIZER_TIMES_FILE, UNIGRAM_TIMES_FILE, tokenizer_need};

    #[test]
    fn a_tokenizer_of_the_greedier_kind_is_counted_as_one() {
        let json = |model: &str| {
            let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
            std::fs::read(data.join(model).join("tokenizer.json")).unwrap()
        };
        let (bert, xlmr) = (json("bert-mean-norm"), json("xlmr-mean-e5"));
        assert_eq!(tokenizer_need(&bert), TOKENIZER_TIMES_FILE * bert.len() as u64);
        assert_eq!(tokenizer_need(&xlmr), UNIGRAM_TIMES_FILE * xlmr.len() as u64);
    }
}
