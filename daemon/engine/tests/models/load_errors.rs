use std::fs;
use std::path::Path;

use emberd_engine::{HeaderFault, LoadError, load_folder, load_masked, load_ranker, load_seq2seq};
use proptest::prelude::{ProptestConfig, any, proptest};
use safetensors::tensor::Dtype;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{OwnedTensor, copy_of, rewrite_weights, set};

const WEIGHTS: &str = "model.safetensors";

/// The error of loading, which must name `file` in its own text.
#[track_caller]
fn error_naming(folder: &TempDir, file: &str) -> LoadError {
    let error = load_folder(folder.path()).unwrap_err();
    let path = folder.path().join(file);
    assert!(
        error.to_string().contains(&path.display().to_string()),
        "{error} does not name {file}"
    );
    error
}

fn change_bytes(folder: &TempDir, change: impl FnOnce(&mut Vec<u8>)) {
    let path = folder.path().join(WEIGHTS);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Replaces the header of the file; the data stays.
fn set_header(folder: &TempDir, header: &str) {
    change_bytes(folder, |bytes| {
        let old = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        let data = bytes.split_off(8 + usize::try_from(old).unwrap());
        *bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
    });
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let folder = copy_of("bert-mean-norm");
    let whole = fs::read(folder.path().join(WEIGHTS)).unwrap();
    let cuts = (0..12).chain((12..whole.len()).step_by(1009)).chain([whole.len() - 1]);
    for len in cuts {
        fs::write(folder.path().join(WEIGHTS), &whole[..len]).unwrap();
        let error = error_naming(&folder, WEIGHTS);
        let cut_header =
            matches!(&error, LoadError::Header { source: HeaderFault::Length { .. }, .. });
        let cut_data = matches!(&error, LoadError::Truncated { found, .. } if *found == len as u64);
        assert!(cut_header || cut_data, "cut to {len}: {error:?}");
    }
}

#[test]
fn bytes_after_the_last_tensor_are_refused() {
    let folder = copy_of("bert-mean-norm");
    change_bytes(&folder, |bytes| bytes.push(0));
    assert!(matches!(error_naming(&folder, WEIGHTS), LoadError::Excess { .. }));
}

#[test]
fn a_header_of_invalid_json_is_refused() {
    let folder = copy_of("bert-mean-norm");
    change_bytes(&folder, |bytes| bytes[9] = b'!');
    let error = error_naming(&folder, WEIGHTS);
    assert!(matches!(error, LoadError::Header { source: HeaderFault::Json(_), .. }), "{error:?}");
}

#[test]
fn a_header_that_lies_about_its_length_is_refused() {
    for claimed in [u64::MAX, u64::MAX - 8, 1 << 40, 420_025] {
        let folder = copy_of("bert-mean-norm");
        change_bytes(&folder, |bytes| bytes[..8].copy_from_slice(&claimed.to_le_bytes()));
        let error = error_naming(&folder, WEIGHTS);
        let fault = matches!(
            error,
            LoadError::Header { source: HeaderFault::Length { claimed: c, .. }, .. } if c == claimed
        );
        assert!(fault, "{claimed}: {error:?}");
    }
}

/// Sizes far beyond the file, in every setting that could be trusted.
#[test]
fn tensors_that_lie_about_their_place_are_refused() {
    let one = |shape: &str, start: u64, end: u64| {
        format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}}}"#)
    };
    let huge = u64::MAX / 4 * 4;
    for (header, fault) in [
        (one("[4611686018427387904]", 0, 16), "Span"),
        (one("[4294967296,4294967296]", 0, 0), "Span"),
        (one("[4]", 16, 0), "Gap"),
        (one("[4]", 16, 32), "Gap"),
        (one("[5]", 0, 16), "Span"),
        (one(&format!("[{}]", huge / 4), 0, huge), "Truncated"),
        (one("[1099511627776]", 0, 1 << 42), "Truncated"),
        (one("[4]", 0, 16), "Excess"),
        (one(r#"[4], "dtype": "F32""#, 0, 16), "Json"),
        (one("[-4]", 0, 16), "Json"),
    ] {
        let folder = copy_of("bert-mean-norm");
        set_header(&folder, &header);
        let error = error_naming(&folder, WEIGHTS);
        assert!(format!("{error:?}").contains(fault), "{header}: {error:?}");
    }
}

#[test]
fn a_header_names_the_tensor_that_is_wrong() {
    let tensor =
        |shape| format!(r#""a\"b":{{"dtype":"F32","shape":{shape},"data_offsets":[0,16]}}"#);
    let metadata = r#""__metadata__":{"format":"pt"}"#;
    for (header, fault) in [
        (format!("{{{metadata},{}}}", tensor("[-4]")), "-4"),
        (format!("{{{},{}}}", tensor("[4]"), tensor("[4]")), "twice"),
    ] {
        let folder = copy_of("bert-mean-norm");
        set_header(&folder, &header);
        let error = error_naming(&folder, WEIGHTS);
        let LoadError::Header { source: HeaderFault::Json(source), .. } = error else {
            panic!("{header}: {error:?}")
        };
        let source = source.to_string();
        assert!(source.contains(r#"tensor "a\"b""#) && source.contains(fault), "{source}");
    }
}

#[test]
fn tensors_that_overlap_or_leave_a_gap_are_refused() {
    for second in ["[8,24]", "[24,40]"] {
        let folder = copy_of("bert-mean-norm");
        let header = format!(
            r#"{{"a":{{"dtype":"F32","shape":[4],"data_offsets":[0,16]}},
                "b":{{"dtype":"F32","shape":[4],"data_offsets":{second}}}}}"#
        );
        set_header(&folder, &header);
        let error = error_naming(&folder, WEIGHTS);
        assert!(
            matches!(error, LoadError::Header { source: HeaderFault::Gap { .. }, .. }),
            "{error:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]
    /// Any part of the header replaced by any bytes: an error or a model, but no panic.
    #[test]
    fn a_damaged_header_never_panics(at in 0usize..4000, bytes in any::<[u8; 6]>(), count in 1usize..=6) {
        let folder = copy_of("bert-mean-norm");
        change_bytes(&folder, |file| file[at..at + count].copy_from_slice(&bytes[..count]));
        if let Err(error) = load_folder(folder.path()) {
            assert!(error.to_string().contains(WEIGHTS), "{error}");
        }
    }
}

#[test]
fn a_missing_tensor_is_named() {
    let folder = copy_of("bert-mean-norm");
    let name = "encoder.layer.1.attention.self.key.bias";
    rewrite_weights(&folder, |mut tensors| {
        tensors.retain(|tensor| tensor.name != name);
        tensors
    });
    let error = error_naming(&folder, WEIGHTS);
    assert!(matches!(error, LoadError::MissingTensor { tensor, .. } if tensor == name));
}

#[test]
fn a_tensor_that_the_configuration_leaves_no_place_for_is_named() {
    let folder = copy_of("bert-mean-norm");
    // One layer fewer than in the weights.
    set(&folder, "config.json", "/num_hidden_layers", json!(1));
    let error = error_naming(&folder, WEIGHTS);
    let LoadError::ExtraTensor { tensor, .. } = error else { panic!("{error:?}") };
    assert!(tensor.starts_with("encoder.layer.1."), "{tensor}");
}

#[test]
fn tensors_beside_the_encoder_are_ignored() {
    let folder = copy_of("bert-mean-norm");
    rewrite_weights(&folder, |mut tensors| {
        for name in ["cls.predictions.bias", "embeddings.position_ids"] {
            let bytes = vec![0; 8];
            tensors.push(OwnedTensor {
                name: name.into(),
                dtype: Dtype::F32,
                shape: vec![2],
                bytes,
            });
        }
        tensors
    });
    load_folder(folder.path()).unwrap();
}

#[test]
fn a_module_outside_of_the_folder_is_refused() {
    for path in ["../other", "/etc", "1_Pooling/../../x"] {
        let folder = copy_of("bert-mean-norm");
        set(&folder, "modules.json", "/1/path", json!(path));
        let error = error_naming(&folder, "modules.json");
        assert!(matches!(error, LoadError::Unsupported { found, .. } if found == path));
    }
}

#[test]
fn a_module_of_other_code_is_refused() {
    for (at, class) in [
        (0, "custom_st.Transformer"),
        (1, "my_module.Pooling"),
        (1, "my_module.sentence_transformers.models.Pooling"),
        (2, "Normalize"),
    ] {
        let folder = copy_of("bert-mean-norm");
        set(&folder, "modules.json", &format!("/{at}/type"), json!(class));
        let error = error_naming(&folder, "modules.json");
        assert!(error.to_string().contains(class), "{error}");
        assert!(matches!(error, LoadError::ForeignCode { .. }), "{error:?}");
    }
}

#[test]
fn an_adapter_over_the_weights_is_refused() {
    const ADAPTER: &str = "adapter_config.json";
    for name in ["bert-mean-norm", "cross-encoder", "bert-mlm", "t5-relu-tied"] {
        let folder = copy_of(name);
        fs::write(folder.path().join(ADAPTER), "{}").unwrap();
        let error = match name {
            "bert-mean-norm" => load_folder(folder.path()).unwrap_err(),
            "cross-encoder" => load_ranker(folder.path()).unwrap_err(),
            "bert-mlm" => load_masked(folder.path()).unwrap_err(),
            _ => load_seq2seq(folder.path()).unwrap_err(),
        };
        let text = error.to_string();
        assert!(text.contains(ADAPTER) && text.contains("merge_and_unload"), "{name}: {text}");
    }
    // As peft writes it, without the model that it belongs to.
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join(ADAPTER), "{}").unwrap();
    assert!(matches!(error_naming(&folder, ADAPTER), LoadError::Adapter { .. }));
}

#[test]
fn a_tensor_of_another_shape_is_named() {
    let folder = copy_of("bert-mean-norm");
    rewrite_weights(&folder, |mut tensors| {
        let up = tensors.iter_mut().find(|t| t.name == "encoder.layer.0.intermediate.dense.weight");
        up.unwrap().shape.reverse();
        tensors
    });
    let error = error_naming(&folder, WEIGHTS);
    let LoadError::TensorShape { tensor, found, wanted, .. } = error else { panic!("{error:?}") };
    assert_eq!(tensor, "encoder.layer.0.intermediate.dense.weight");
    assert_eq!((found, wanted), (vec![32, 64], vec![64, 32]));
}

#[test]
fn a_tensor_of_other_elements_is_named() {
    let folder = copy_of("bert-mean-norm");
    rewrite_weights(&folder, |mut tensors| {
        let bias = tensors.iter_mut().find(|t| t.name == "embeddings.LayerNorm.bias").unwrap();
        bias.dtype = Dtype::I32;
        tensors
    });
    let error = error_naming(&folder, WEIGHTS);
    assert!(matches!(error, LoadError::ElementType { found, .. } if found == "I32"));
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let folder = copy_of("bert-mean-norm");
    let foreign =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/builtin/static-minilm/tokenizer.json");
    fs::copy(foreign, folder.path().join("tokenizer.json")).unwrap();
    let error = error_naming(&folder, "tokenizer.json");
    assert!(
        matches!(error, LoadError::TokenizerTooLarge { token: 30_521, rows: 2615, .. }),
        "{error:?}"
    );
}

/// Few tokens, but one with a large id: in the vocabulary, or among the special tokens.
#[test]
fn a_single_token_beyond_the_weights_is_refused() {
    for pointer in ["/model/vocab/the", "/post_processor/special_tokens/[CLS]/ids/0"] {
        let folder = copy_of("bert-mean-norm");
        set(&folder, "tokenizer.json", pointer, json!(1_000_000));
        let error = error_naming(&folder, "tokenizer.json");
        assert!(
            matches!(error, LoadError::TokenizerTooLarge { token: 1_000_000, .. }),
            "{pointer}: {error:?}"
        );
    }
}

#[test]
fn values_that_are_no_numbers_are_refused() {
    for value in [f32::NAN, f32::INFINITY] {
        let folder = copy_of("bert-mean-norm");
        rewrite_weights(&folder, |mut tensors| {
            let table = tensors.iter_mut().find(|t| t.name.ends_with("word_embeddings.weight"));
            table.unwrap().bytes[400..404].copy_from_slice(&value.to_le_bytes());
            tensors
        });
        assert!(matches!(error_naming(&folder, WEIGHTS), LoadError::NotFinite { .. }));
    }
}

/// Opening a named pipe without a writer would wait for ever.
#[test]
fn a_file_that_is_not_regular_is_refused() {
    for file in [WEIGHTS, "tokenizer.json", "config.json", "modules.json"] {
        let folder = copy_of("bert-mean-norm");
        let path = folder.path().join(file);
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(error_naming(&folder, file), LoadError::Read { .. }));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(error_naming(&folder, file), LoadError::Read { .. }));
    }
}

#[test]
fn a_damaged_tokenizer_is_refused() {
    let folder = copy_of("bert-mean-norm");
    fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    assert!(matches!(error_naming(&folder, "tokenizer.json"), LoadError::Tokenizer { .. }));
}

/// The number of tokens that are left would be negative.
#[test]
fn a_limit_without_room_for_a_text_is_refused() {
    let folder = copy_of("bert-mean-norm");
    for limit in [0, 1, 2] {
        set(&folder, "sentence_bert_config.json", "/max_seq_length", json!(limit));
        assert!(matches!(error_naming(&folder, "tokenizer.json"), LoadError::Setting { .. }));
    }
    set(&folder, "sentence_bert_config.json", "/max_seq_length", json!(3));
    let model = load_folder(folder.path()).unwrap();
    assert_eq!(model.tokenize("several words").unwrap().ids.len(), 3);
}

#[test]
fn a_missing_file_is_named() {
    for file in ["config.json", "tokenizer.json", "1_Pooling/config.json"] {
        let folder = copy_of("bert-mean-norm");
        fs::remove_file(folder.path().join(file)).unwrap();
        assert!(matches!(error_naming(&folder, file), LoadError::Read { .. }));
    }
    let folder = copy_of("bert-mean-norm");
    fs::remove_file(folder.path().join(WEIGHTS)).unwrap();
    assert!(matches!(error_naming(&folder, ""), LoadError::NoWeights { .. }));
}

#[test]
fn unsupported_settings_are_named_with_the_supported_ones() {
    for (file, pointer, value, supported) in [
        ("config.json", "/model_type", json!("mamba"), "bert, roberta"),
        ("config.json", "/hidden_act", json!("mish"), "gelu"),
        ("config.json", "/position_embedding_type", json!("relative_key"), "absolute"),
        ("modules.json", "/2/type", json!("sentence_transformers.models.CNN"), "Normalize"),
        (
            "modules.json",
            "/0/type",
            json!("sentence_transformers.models.CLIPModel"),
            "Transformer and Pooling, or StaticEmbedding",
        ),
    ] {
        let folder = copy_of("bert-mean-norm");
        set(&folder, file, pointer, value.clone());
        let error = error_naming(&folder, file);
        assert!(matches!(error, LoadError::Unsupported { .. }), "{error:?}");
        let text = error.to_string();
        let found = value.as_str().and_then(|v| v.rsplit('.').next()).unwrap_or("");
        assert!(text.contains(found) && text.contains(supported), "{text}");
    }
}

#[test]
fn impossible_sizes_are_refused() {
    for (key, value) in [
        ("/num_attention_heads", 0),
        ("/num_attention_heads", 5),
        ("/hidden_size", 0),
        ("/vocab_size", 0),
        ("/max_position_embeddings", 1_u64 << 40),
    ] {
        let folder = copy_of("bert-mean-norm");
        set(&folder, "config.json", key, json!(value));
        let error = error_naming(&folder, "config.json");
        assert!(matches!(error, LoadError::Setting { .. }), "{error:?}");
    }
}
