use std::fs;
use std::sync::Arc;

use emberd_engine::Seq2SeqModel;
use emberd_engine::WeightType;
use emberd_engine::{LoadError, folder_need, load_folder, load_seq2seq, seq2seq_need};
use proptest::prelude::{ProptestConfig, any, prop, proptest};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::write;
use crate::test_data::{add, copy_of, data, json, sentencepiece_folder, texts};

fn load(folder: &TempDir) -> Arc<dyn Seq2SeqModel> {
    load_seq2seq(folder.path()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Compares the token ids and the decoded texts of a model with those of transformers.
#[track_caller]
fn compare(model: &dyn Seq2SeqModel, expected: &Value, texts: &[String], what: &str) {
    let read = expected["read"].as_array().unwrap();
    assert!(read.len() == texts.len() && !read.is_empty(), "{what}");
    for (text, row) in texts.iter().zip(read) {
        let got = model.tokenize(text, usize::MAX).unwrap().ids;
        assert_eq!(got, ids(&row["ids"]), "{what}: {text:?}");
    }
    for row in read.iter().chain(expected["drawn"].as_array().unwrap()) {
        let got = model.detokenize(&ids(&row["ids"])).unwrap();
        assert_eq!(got, row["text"].as_str().unwrap(), "{what}: {}", row["ids"]);
    }
}

fn extra_texts(expected: &Value) -> Vec<String> {
    serde_json::from_value(expected["extra_texts"].clone()).unwrap()
}

#[test]
fn a_marian_folder_as_published_reads_and_writes_as_transformers_does() {
    let expected = json("sentencepiece/expected.json");
    let texts = [texts(), extra_texts(&expected)].concat();
    let model = load(&sentencepiece_folder("marian"));
    compare(&*model, &expected["marian"], &texts, "marian");
}

#[test]
fn a_t5_folder_with_a_spiece_model_reads_and_writes_as_transformers_does() {
    let expected = json("sentencepiece/expected.json");
    for (name, variant) in expected["t5"].as_object().unwrap() {
        let folder = sentencepiece_folder("t5");
        let mut texts = if name == "as published" { texts() } else { Vec::new() };
        texts.extend(extra_texts(&expected));
        for (file, changes) in variant["files"].as_object().unwrap() {
            for (key, value) in changes.as_object().unwrap() {
                add(&folder, file, key, value.clone());
            }
        }
        compare(&*load(&folder), variant, &texts, name);
    }
}

#[test]
fn the_memory_of_such_a_tokenizer_is_counted() {
    for (kind, file) in [("t5", "spiece.model"), ("marian", "source.spm"), ("marian", "vocab.json")]
    {
        let folder = sentencepiece_folder(kind);
        let before = seq2seq_need(folder.path(), 1).unwrap().cpu_bytes;
        let path = folder.path().join(file);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, [&bytes[..], &bytes].concat()).unwrap();
        let after = seq2seq_need(folder.path(), 1).unwrap().cpu_bytes;
        assert!(after > before + bytes.len() as u64, "{file}: {before} {after}");
    }
}

#[test]
fn a_marian_takes_512_tokens_by_default() {
    let folder = sentencepiece_folder("marian");
    add(&folder, "config.json", "max_position_embeddings", json!(1024));
    assert_eq!(load(&folder).spec().max_tokens, 512);
    add(&folder, "tokenizer_config.json", "model_max_length", json!(600));
    assert_eq!(load(&folder).spec().max_tokens, 600);
}

#[test]
fn the_end_of_a_long_text_is_cut_off_with_a_tokenizer_of_sentencepiece_too() {
    let folder = sentencepiece_folder("marian");
    let text = format!(">>deu<< {}", "Good morning, several words. ".repeat(4000));
    let whole = load(&folder).tokenize(&text, usize::MAX).unwrap();
    assert!(whole.ids.len() > 10_000 && !whole.truncated);
    for max in [1, 2, 40, 700, 9000] {
        let got = load(&folder).tokenize(&text, max).unwrap();
        assert_eq!(got.ids[..max - 1], whole.ids[..max - 1]);
        assert_eq!((got.ids[max - 1..].to_vec(), got.truncated), (vec![0], true));
    }
    add(&folder, "tokenizer_config.json", "truncation_side", json!("left"));
    let got = load(&folder).tokenize(&text, 40).unwrap().ids;
    assert_eq!(got, whole.ids[whole.ids.len() - 40..]);
}

/// The error of loading, which must name `file` and `fault`.
#[track_caller]
fn error_naming(folder: &TempDir, file: &str, fault: &str) -> LoadError {
    let error = load_seq2seq(folder.path()).unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    let text = format!("{error}: {source}");
    let path = folder.path().join(file).display().to_string();
    assert!(text.contains(&path) && text.contains(fault), "{text} does not name {file}, {fault}");
    error
}

/// Appends a message to a file of a folder: protobuf merges messages that follow each other.
fn append(folder: &TempDir, file: &str, bytes: &[u8]) {
    let path = folder.path().join(file);
    let whole = [&fs::read(&path).unwrap()[..], bytes].concat();
    fs::write(path, whole).unwrap();
}

#[test]
fn a_file_that_is_missing_is_named() {
    for file in ["source.spm", "target.spm", "vocab.json"] {
        let folder = sentencepiece_folder("marian");
        fs::remove_file(folder.path().join(file)).unwrap();
        let error = error_naming(&folder, file, "");
        assert!(matches!(error, LoadError::Read { .. }), "{error:?}");
    }
}

#[test]
fn unsupported_settings_are_named() {
    let folder = sentencepiece_folder("marian");
    add(&folder, "tokenizer_config.json", "separate_vocabs", json!(true));
    let error = error_naming(&folder, "tokenizer_config.json", "separate_vocabs");
    assert!(matches!(error, LoadError::Unsupported { .. }), "{error:?}");
    // Fields of trainer_spec and denormalizer_spec.
    for (kind, file, bytes, fault) in [
        ("t5", "spiece.model", &[0x12, 2, 0x18, 2][..], "BPE"),
        ("t5", "spiece.model", &[0x12, 2, 0x18, 4], "CHAR"),
        ("marian", "source.spm", &[0x12, 2, 0x18, 3], "WORD"),
        ("marian", "source.spm", &[0x12, 3, 0x98, 2, 1], "byte_fallback"),
        ("marian", "target.spm", &[0x12, 3, 0x98, 2, 1], "byte_fallback"),
        ("marian", "target.spm", &[0x2A, 3, 0x12, 1, 0], "denormalizer_spec"),
    ] {
        let folder = sentencepiece_folder(kind);
        append(&folder, file, bytes);
        let error = error_naming(&folder, file, fault);
        assert!(matches!(error, LoadError::Unsupported { .. }), "{error:?}");
    }
}

#[test]
fn special_tokens_that_a_marian_cannot_have_are_named() {
    let token = |content: &str, lstrip: bool| {
        json!({"content": content, "lstrip": lstrip, "rstrip": false, "normalized": false,
            "single_word": false, "special": true})
    };
    for (id, token, file, fault) in [
        ("0", token("</s>", true), "tokenizer_config.json", "</s>"),
        ("5", token("other", false), "tokenizer_config.json", "other"),
        ("700", token("<pad>", false), "vocab.json", "700"),
    ] {
        let folder = sentencepiece_folder("marian");
        add(&folder, "tokenizer_config.json", "added_tokens_decoder", json!({id: token}));
        error_naming(&folder, file, fault);
    }
    let folder = sentencepiece_folder("marian");
    add(&folder, "tokenizer_config.json", "pad_token", json!("<nothing>"));
    error_naming(&folder, "vocab.json", "<nothing>");
}

#[test]
fn invalid_numbers_of_extra_tokens_are_refused() {
    let folder = sentencepiece_folder("t5");
    add(&folder, "tokenizer_config.json", "extra_ids", json!(u64::MAX));
    error_naming(&folder, "tokenizer_config.json", "extra_ids");
    add(&folder, "tokenizer_config.json", "extra_ids", json!(3));
    let one = json!({"additional_special_tokens": ["<extra_id_0>"]});
    write(&folder, "special_tokens_map.json", &one);
    let error = error_naming(&folder, "tokenizer_config.json", "extra_ids is 3");
    assert!(matches!(error, LoadError::Setting { .. }), "{error:?}");
    // More tokens than the weights have rows.
    write(&folder, "special_tokens_map.json", &json!({}));
    add(&folder, "tokenizer_config.json", "extra_ids", json!(1000));
    let error = error_naming(&folder, "spiece.model", "");
    assert!(matches!(error, LoadError::TokenizerTooLarge { rows: 816, .. }), "{error:?}");
}

#[test]
fn an_invalid_list_of_numbers_is_refused() {
    for (vocabulary, fault) in [
        (json!({"</s>": 0, "<unk>": 1, "<pad>": 2, "a": 2}), "two pieces"),
        (json!({"</s>": 0, "<pad>": 2}), "<unk>"),
        (json!({"</s>": 0, "<unk>": 1, "<pad>": 4_000_000_000_u32}), "4000000000"),
        (json!({"</s>": 0, "<unk>": 1, "<pad>": -1}), ""),
        (json!(["</s>"]), ""),
    ] {
        let folder = sentencepiece_folder("marian");
        write(&folder, "vocab.json", &vocabulary);
        error_naming(&folder, "vocab.json", fault);
    }
}

/// Each is one field, appended to the message.
#[test]
fn damage_is_found_before_it_costs_anything() {
    let huge = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F];
    let piece = |text: &[u8]| {
        let len = u8::try_from(text.len()).unwrap();
        [&[0x0A, len + 2, 0x0A, len], text].concat()
    };
    let charsmap = |bytes: &[u8]| {
        let len = u8::try_from(bytes.len()).unwrap();
        [&[0x1A, len + 2, 0x12, len], bytes].concat()
    };
    for (bytes, fault) in [
        ([&[0x0A][..], &huge].concat(), "ModelProto.pieces: buffer underflow"),
        ([&[0x12][..], &huge].concat(), "ModelProto.trainer_spec: buffer underflow"),
        (
            vec![0x0A, 4, 0x0A, 0xFF, 0xFF, 0x7F],
            "SentencePiece.piece: ModelProto.pieces: buffer underflow",
        ),
        (vec![0x0A, 0], "is empty"),
        (piece(&[0xFF]), "SentencePiece.piece: ModelProto.pieces: invalid string"),
        (vec![0x0A, 8, 0x0A, 1, b'x', 0x15, 0, 0, 0xC0, 0x7F], "not finite"),
        (vec![0x0A, 5, 0x0A, 1, b'x', 0x18, 2], "2 unknown pieces"),
        (vec![0x0A, 5, 0x0A, 1, b'x', 0x18, 9], "unknown kind"),
        (vec![0x12, 2, 0x18, 9], "model_type 9"),
        (
            vec![0x12, 2, 0x1D, 0],
            "TrainerSpec.model_type: ModelProto.trainer_spec: invalid wire type",
        ),
        // A group without an end, and groups that nest too deeply.
        (vec![0xC3, 0x0C], "not a sentencepiece model"),
        ([0xC3, 0x0C].repeat(1000), "recursion limit"),
        // Rules without a length, with an impossible one, without replacements, and out of bounds.
        (charsmap(&[1]), "precompiled_charsmap"),
        (charsmap(&[0, 0, 0, 0, 0]), "precompiled_charsmap"),
        (charsmap(&[0xFC, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0]), "precompiled_charsmap"),
        (charsmap(&[4, 0, 0, 0, 0, 0, 0, 0]), "precompiled_charsmap"),
        (charsmap(&[4, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0]), "precompiled_charsmap"),
    ] {
        for (kind, file) in [("t5", "spiece.model"), ("marian", "source.spm")] {
            let folder = sentencepiece_folder(kind);
            append(&folder, file, &bytes);
            let error = error_naming(&folder, file, fault);
            assert!(matches!(error, LoadError::Tokenizer { .. }), "{error:?}");
        }
    }
    let folder = sentencepiece_folder("marian");
    append(&folder, "source.spm", &piece("\u{2581}the".as_bytes()));
    error_naming(&folder, "source.spm", "occurs twice");
    let many = [0x0A, 3, 0x0A, 1, b'x'].repeat(1 << 20);
    for (bytes, fault) in [(&many[..], "at most 1048576 pieces"), (&[0x0A, 0], "is empty")] {
        let folder = sentencepiece_folder("t5");
        append(&folder, "spiece.model", bytes);
        error_naming(&folder, "spiece.model", fault);
    }
    let long = vec![b'x'; 2000];
    let folder = sentencepiece_folder("t5");
    append(&folder, "spiece.model", &[&[0x0A, 0xD3, 0x0F, 0x0A, 0xD0, 0x0F][..], &long].concat());
    error_naming(&folder, "spiece.model", "longer than any");
    for kind in ["t5", "marian"] {
        for empty in ["spiece.model", "source.spm", "target.spm"] {
            let folder = sentencepiece_folder(kind);
            if folder.path().join(empty).exists() {
                fs::write(folder.path().join(empty), "").unwrap();
                error_naming(&folder, empty, "0 unknown pieces");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]
    /// Any bytes anywhere in a file: an error, or a tokenizer that works, but no panic.
    #[test]
    fn a_damaged_tokenizer_never_panics(
        file in 0usize..6, at in any::<u32>(), bytes in prop::collection::vec(any::<u8>(), 1..5),
        cut in any::<bool>(), text in "[a-zA-Z \\PC<>]{0,40}",
    ) {
        let (kind, file) = [
            ("t5", "spiece.model"),
            ("t5", "tokenizer_config.json"),
            ("marian", "source.spm"),
            ("marian", "target.spm"),
            ("marian", "vocab.json"),
            ("marian", "source.spm"),
        ][file];
        let folder = sentencepiece_folder(kind);
        let path = folder.path().join(file);
        let mut whole = fs::read(&path).unwrap();
        let at = at as usize % (whole.len() - bytes.len());
        whole[at..at + bytes.len()].copy_from_slice(&bytes);
        if cut {
            whole.truncate(at + bytes.len());
        }
        fs::write(&path, whole).unwrap();
        match load_seq2seq(folder.path()) {
            Ok(model) => {
                let ids = model.tokenize(&text, 64).unwrap().ids;
                model.detokenize(&ids).unwrap();
                for other in texts() {
                    model.tokenize(&other, 64).unwrap();
                }
            }
            Err(error) => {
                let path = folder.path().display().to_string();
                assert!(error.to_string().contains(&path), "{error}");
            }
        }
    }
}

#[test]
fn an_encoder_of_t5_may_have_a_spiece_model_too() {
    let expected = json("sentencepiece/expected.json");
    let folder = copy_of("sentence-t5");
    for file in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        fs::remove_file(folder.path().join(file)).unwrap();
    }
    let without = folder_need(folder.path(), 1, 512, 512, WeightType::F32).unwrap().cpu_bytes;
    error_of_encoder(&folder, "tokenizer.json");
    let spiece = folder.path().join("spiece.model");
    fs::copy(data("sentencepiece/t5/spiece.model"), &spiece).unwrap();
    let with = folder_need(folder.path(), 1, 512, 512, WeightType::F32).unwrap().cpu_bytes;
    assert!(with > without + fs::metadata(&spiece).unwrap().len());

    let model = load_folder(folder.path()).unwrap();
    for (text, row) in
        texts().iter().zip(expected["t5"]["as published"]["read"].as_array().unwrap())
    {
        let (got, want) = (model.tokenize(text).unwrap(), ids(&row["ids"]));
        if text.trim() == text && !got.truncated {
            assert_eq!(got.ids, want, "{text:?}");
        }
    }
    // Another tokenizer gives other rows, and so another fingerprint.
    add(&folder, "config.json", "vocab_size", json!(816));
    write(&folder, "tokenizer_config.json", &json!({"extra_ids": 99, "model_max_length": 512}));
    let other = load_folder(folder.path()).unwrap();
    assert_ne!(model.fingerprint(), other.fingerprint());
    fs::write(spiece, "no model").unwrap();
    error_of_encoder(&folder, "spiece.model");
}

#[track_caller]
fn error_of_encoder(folder: &TempDir, file: &str) {
    let error = load_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains(&folder.path().join(file).display().to_string()), "{error}");
}
