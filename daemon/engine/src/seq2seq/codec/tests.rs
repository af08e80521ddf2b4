use std::path::Path;

use serde_json::{Value, json};

use super::{LEAST_BYTES, RawCodec, TextCodec, TokenizerFile};

fn raw(folder: &Path) -> RawCodec {
    let raw = TokenizerFile::open(&folder.join("tokenizer.json")).unwrap();
    RawCodec::Library(Box::new(raw))
}

fn codec(model: &str, config: &Value) -> TextCodec {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(model);
    TextCodec::new(raw(&data), 10_000, config).unwrap()
}

#[test]
fn a_very_long_text_has_the_first_tokens_of_all_of_it() {
    let codec = codec("t5-relu-tied", &Value::Null);
    for part in ["one two three ", "word", "     ", "漢字"] {
        let text = format!("{}end", part.repeat(5 * LEAST_BYTES / part.len()));
        let whole = codec.tokens(&text).unwrap();
        for max in [1, 2, 40, 700, 1_000_000] {
            let got = codec.tokenize(&text, max).unwrap();
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
            let got = codec.tokenize(&text, max).unwrap();
            let (all, len) = (&whole, whole.len().min(max - 1));
            assert_eq!(got.ids[..len], all[all.len() - len..], "{part:?} {max}");
            assert_eq!((&got.ids[len..], got.truncated), (&[1][..], len < all.len()));
        }
    }
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/t5-relu-tied");
    let error =
        TextCodec::new(raw(&data), 10_000, &json!({"truncation_side": "both"})).unwrap_err();
    assert!(error.to_string().contains("both"), "{error}");
}

/// The text that is settled at some token never changes.
#[test]
fn decoded_text_is_final() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let raw = TokenizerFile::open(&data.join("gemma3-mean-dense2/tokenizer.json")).unwrap();
    // One whose tokens for bytes are text by themselves only where they are whole characters.
    let raw = RawCodec::Library(Box::new(raw));
    let bytes = TextCodec::new(raw, 10_000, &Value::Null).unwrap();
    assert_eq!(bytes.bytes.len(), 256);
    let byte = |byte: usize| bytes.bytes[byte];
    let words = bytes.tokenize("hello word", 20).unwrap().ids;
    let ids = [&[byte(b':'.into()), byte(b'^'.into()), byte(0xE4), byte(0xF0)], &words[..]];
    let mut settled = String::new();
    let ids = ids.concat();
    for end in 1..=ids.len() {
        let text = bytes.detokenize(&ids[..end]).unwrap();
        let len = bytes.settled_bytes(&ids[..end], &text).unwrap();
        assert!(text[..len].starts_with(&settled), "{settled:?} is not of {text:?}");
        settled = text[..len].to_owned();
    }
    assert!(settled.contains("word"), "{settled:?}");

    let codec = codec("bart", &json!({"clean_up_tokenization_spaces": true}));
    for text in ["r ' . tan n", "do n't ' 've , it 's", "a ' ' b ? !", "x 're y"] {
        let ids = codec.tokenize(text, 100).unwrap().ids;
        let mut settled = String::new();
        for end in 1..=ids.len() {
            let text = codec.detokenize(&ids[..end]).unwrap();
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
        let ids = codec.tokenize(text, 100).unwrap().ids;
        assert_eq!(codec.detokenize(&ids).unwrap(), want);
    }
}
