use std::fs;
use std::sync::Arc;

use emberd_engine::Seq2SeqModel;
use emberd_engine::{LoadError, load_seq2seq};
use proptest::prelude::{ProptestConfig, any, proptest};
use safetensors::tensor::Dtype;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{OwnedTensor, add, copy_of, data, rewrite_weights, set};

/// The error of loading, which must name `file` in its own text.
#[track_caller]
fn error_naming(folder: &TempDir, file: &str) -> LoadError {
    let error = load_seq2seq(folder.path()).unwrap_err();
    let path = folder.path().join(file);
    assert!(
        error.to_string().contains(&path.display().to_string()),
        "{error} does not name {file}"
    );
    error
}

/// The error for a folder where one tensor was changed.
#[track_caller]
fn error_with(model: &str, tensor: &str, change: impl FnOnce(&mut OwnedTensor)) -> LoadError {
    let folder = copy_of(model);
    rewrite_weights(&folder, |mut tensors| {
        change(tensors.iter_mut().find(|t| t.name == tensor).unwrap());
        tensors
    });
    error_naming(&folder, "model.safetensors")
}

#[test]
fn a_tensor_that_is_missing_is_named() {
    for (model, name) in [
        ("t5-relu-tied", "decoder.block.1.layer.1.EncDecAttention.k.weight"),
        ("t5-relu-tied", "shared.weight"),
        ("flan-t5-gated-untied", "lm_head.weight"),
        ("flan-t5-gated-untied", "encoder.block.0.layer.1.DenseReluDense.wi_1.weight"),
        ("mt5", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
        ("bart", "model.decoder.layernorm_embedding.bias"),
        ("bart", "model.shared.weight"),
        ("marian", "model.encoder.layers.1.fc2.bias"),
    ] {
        let folder = copy_of(model);
        rewrite_weights(&folder, |mut tensors| {
            tensors.retain(|tensor| tensor.name != name);
            tensors
        });
        let error = error_naming(&folder, "model.safetensors");
        assert!(matches!(error, LoadError::MissingTensor { tensor, .. } if tensor == name));
    }
}

#[test]
fn a_tensor_that_the_configuration_leaves_no_place_for_is_named() {
    for (model, setting, start) in [
        ("t5-relu-tied", "/num_layers", "encoder.block.2."),
        ("mt5", "/num_decoder_layers", "decoder.block.1."),
        ("bart", "/encoder_layers", "model.encoder.layers.1."),
        ("marian", "/decoder_layers", "model.decoder.layers.1."),
    ] {
        let folder = copy_of(model);
        let fewer = if setting == "/num_layers" { 2 } else { 1 };
        set(&folder, "config.json", setting, json!(fewer));
        let error = error_naming(&folder, "model.safetensors");
        let LoadError::ExtraTensor { tensor, .. } = error else { panic!("{error:?}") };
        assert!(tensor.starts_with(start), "{tensor}");
    }
}

/// Copies of a shared table, positions that are computed, and a bias that no code has ever used.
#[test]
fn extra_tensors_of_old_files_are_ignored() {
    for (model, names) in [
        (
            "t5-relu-tied",
            [
                "encoder.embed_tokens.weight",
                "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
            ],
        ),
        ("marian", ["model.encoder.embed_positions.weight", "model.decoder.embed_tokens.weight"]),
    ] {
        let folder = copy_of(model);
        rewrite_weights(&folder, |mut tensors| {
            tensors.extend(names.map(|name| OwnedTensor {
                name: name.to_owned(),
                dtype: Dtype::F32,
                shape: vec![2],
                bytes: vec![0; 8],
            }));
            tensors
        });
        load_seq2seq(folder.path()).unwrap();
    }
}

#[test]
fn a_tensor_of_another_shape_is_named() {
    for (model, name) in [
        ("t5-relu-tied", "encoder.block.0.layer.1.DenseReluDense.wo.weight"),
        ("mt5", "decoder.block.0.layer.0.SelfAttention.o.weight"),
        ("flan-t5-gated-untied", "decoder.block.0.layer.2.DenseReluDense.wi_0.weight"),
        ("bart", "model.encoder.layers.0.fc1.weight"),
        ("bart", "model.shared.weight"),
        ("marian", "final_logits_bias"),
    ] {
        let error = error_with(model, name, |tensor| tensor.shape.reverse());
        assert!(matches!(error, LoadError::TensorShape { tensor, .. } if tensor == name));
    }
}

#[test]
fn a_tensor_of_other_elements_or_without_numbers_is_named() {
    let name = "decoder.final_layer_norm.weight";
    let error = error_with("mt5", name, |tensor| tensor.dtype = Dtype::I32);
    assert!(matches!(error, LoadError::ElementType { found, .. } if found == "I32"));
    // In the last of the pieces that a large tensor is read in.
    let name = "shared.weight";
    let error = error_with("mt5", name, |tensor| {
        let end = tensor.bytes.len();
        tensor.bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert!(matches!(error, LoadError::NotFinite { tensor, .. } if tensor == name));
}

#[test]
fn a_file_that_was_cut_is_refused() {
    for model in ["flan-t5-gated-untied", "bart"] {
        let folder = copy_of(model);
        let path = folder.path().join("model.safetensors");
        let whole = fs::read(&path).unwrap();
        for len in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..len]).unwrap();
            let error = error_naming(&folder, "model.safetensors");
            let is_cut = matches!(error, LoadError::Header { .. } | LoadError::Truncated { .. });
            assert!(is_cut, "{error:?}");
        }
    }
}

#[test]
fn unsupported_settings_are_named_with_the_supported_ones() {
    for (model, pointer, value, supported) in [
        ("t5-relu-tied", "/model_type", json!("pegasus"), "t5, mt5, bart, marian"),
        ("t5-relu-tied", "/model_type", json!("umt5"), "t5, mt5, bart, marian"),
        ("bart", "/model_type", json!("mbart"), "t5, mt5, bart, marian"),
        ("t5-relu-tied", "/dense_act_fn", json!("quick_gelu"), "gelu_new"),
        ("marian", "/activation_function", json!("mish"), "swish"),
    ] {
        let folder = copy_of(model);
        set(&folder, "config.json", pointer, value.clone());
        let error = error_naming(&folder, "config.json");
        assert!(matches!(error, LoadError::Unsupported { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(value.as_str().unwrap()) && text.contains(supported), "{text}");
    }
}

#[test]
fn impossible_sizes_are_refused() {
    for (model, key, value) in [
        ("t5-relu-tied", "/num_heads", 0_u64),
        ("t5-relu-tied", "/d_model", 0),
        ("t5-relu-tied", "/vocab_size", 1 << 40),
        ("t5-relu-tied", "/relative_attention_num_buckets", 1),
        ("t5-relu-tied", "/relative_attention_max_distance", 0),
        ("t5-relu-tied", "/relative_attention_max_distance", 1 << 20),
        ("bart", "/decoder_attention_heads", 5),
        ("bart", "/encoder_layers", 0),
        ("marian", "/max_position_embeddings", 0),
        ("marian", "/max_position_embeddings", 1 << 20),
    ] {
        let folder = copy_of(model);
        set(&folder, "config.json", key, json!(value));
        let error = error_naming(&folder, "config.json");
        assert!(matches!(error, LoadError::Setting { .. }), "{model} {key}: {error:?}");
    }
}

#[test]
fn settings_of_another_kind_are_refused_by_name() {
    for (model, file, setting, value) in [
        ("t5-relu-tied", "config.json", "d_model", json!("wide")),
        ("t5-relu-tied", "config.json", "d_kv", json!(null)),
        ("t5-relu-tied", "config.json", "is_gated_act", json!("yes")),
        ("mt5", "config.json", "tie_word_embeddings", json!(1)),
        ("mt5", "config.json", "transformers_version", json!(5)),
        ("bart", "config.json", "encoder_layers", json!(1.5)),
        ("bart", "config.json", "activation_function", json!(["gelu"])),
        ("marian", "config.json", "share_encoder_decoder_embeddings", json!("no")),
        ("bart", "generation_config.json", "num_beams", json!("four")),
        ("bart", "generation_config.json", "eos_token_id", json!(-1)),
        ("bart", "generation_config.json", "do_sample", json!("no")),
    ] {
        let folder = copy_of(model);
        add(&folder, file, setting, value);
        let error = error_naming(&folder, file);
        let LoadError::Json { source, .. } = &error else { panic!("{model} {setting}: {error:?}") };
        assert!(source.to_string().contains(setting), "{source}");
    }
}

#[test]
fn files_of_invalid_json_are_named() {
    for file in ["config.json", "generation_config.json", "tokenizer_config.json"] {
        let folder = copy_of("bart");
        fs::write(folder.path().join(file), "{").unwrap();
        assert!(matches!(error_naming(&folder, file), LoadError::Json { .. }));
    }
    let folder = copy_of("bart");
    fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    assert!(matches!(error_naming(&folder, "tokenizer.json"), LoadError::Tokenizer { .. }));
}

#[test]
fn a_missing_file_is_named() {
    for file in ["config.json", "tokenizer.json"] {
        let folder = copy_of("bart");
        fs::remove_file(folder.path().join(file)).unwrap();
        assert!(matches!(error_naming(&folder, file), LoadError::Read { .. }));
    }
    // These two may be missing.
    let folder = copy_of("bart");
    fs::remove_file(folder.path().join("generation_config.json")).unwrap();
    fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
    let model = load_seq2seq(folder.path()).unwrap();
    assert_eq!(model.spec().max_tokens, 68);
    assert_eq!(
        (&model.defaults().forced_bos[..], &model.defaults().forced_eos[..]),
        (&[][..], &[2][..])
    );
}

#[test]
fn a_tokenizer_in_another_form_says_what_to_do() {
    for (model, other) in [
        ("bart", "spiece.model"),
        ("bart", "sentencepiece.bpe.model"),
        ("bart", "vocab.json"),
        ("mt5", "vocab.json"),
    ] {
        let folder = copy_of(model);
        fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
        fs::write(folder.path().join(other), "").unwrap();
        let error = load_seq2seq(folder.path()).unwrap_err();
        assert!(matches!(error, LoadError::NoTokenizer { found, .. } if found == other));
        let text = error.to_string();
        assert!(text.contains(&folder.path().display().to_string()), "{text}");
        assert!(text.contains("save_pretrained"), "{text}");
    }
}

/// transformers writes no tokenizer.json for a Marian.
#[test]
fn a_marian_error_does_not_suggest_to_write_a_tokenizer() {
    for other in ["spiece.model", "vocab.txt"] {
        let folder = copy_of("marian");
        fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
        fs::write(folder.path().join(other), "").unwrap();
        let error = error_naming(&folder, "tokenizer.json");
        assert!(matches!(error, LoadError::Read { .. }), "{error:?}");
    }
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let folder = copy_of("t5-relu-tied");
    fs::copy(crate::support::data("bart/tokenizer.json"), folder.path().join("tokenizer.json"))
        .unwrap();
    let error = error_naming(&folder, "tokenizer.json");
    assert!(
        matches!(error, LoadError::TokenizerTooLarge { token: 999, rows: 816, .. }),
        "{error:?}"
    );
}

/// Saved without the output layer around it, as a plain `BartModel` is.
#[test]
fn names_without_a_prefix_are_understood() {
    let folder = copy_of("bart");
    rewrite_weights(&folder, |mut tensors| {
        for tensor in &mut tensors {
            tensor.name = tensor.name.trim_start_matches("model.").to_owned();
        }
        tensors
    });
    load_seq2seq(folder.path()).unwrap();
}

/// The logits behind the start token.
fn first_logits(model: &Arc<dyn Seq2SeqModel>, start: u32) -> Vec<f32> {
    let input = model.tokenize("Several words.", 64).unwrap();
    let mut decoder = Arc::clone(model).decoder(1).unwrap();
    let source = decoder.admit(&[&input]).unwrap()[0];
    let answer = decoder.begin(source, 4).unwrap();
    let mut logits = Vec::new();
    decoder.step(&[(answer, start)], &mut logits).unwrap();
    logits
}

/// Newer versions of transformers write a BART with untied tables like this.
#[test]
fn barts_stacks_may_have_tables_of_their_own() {
    let folder = copy_of("bart");
    add(&folder, "config.json", "tie_word_embeddings", json!(false));
    rewrite_weights(&folder, |mut tensors| {
        let shared =
            tensors.iter_mut().find(|tensor| tensor.name == "model.shared.weight").unwrap();
        let named = |name: &str| OwnedTensor { name: name.to_owned(), ..shared.clone() };
        let own = [
            "model.encoder.embed_tokens.weight",
            "model.decoder.embed_tokens.weight",
            "lm_head.weight",
        ]
        .map(named);
        shared.bytes = vec![0; shared.bytes.len()];
        tensors.retain(|tensor| own.iter().all(|own| own.name != tensor.name));
        tensors.extend(own);
        tensors
    });
    let [own, tied] = [folder.path().to_owned(), data("bart")]
        .map(|path| first_logits(&load_seq2seq(&path).unwrap(), 2));
    assert_eq!(own, tied);
}

/// Each stack has a table of its own with the same values, so that no logit changes.
#[test]
fn marians_stacks_may_have_tables_of_their_own() {
    let folder = copy_of("marian");
    rewrite_weights(&folder, |mut tensors| {
        let shared = tensors.iter().position(|t| t.name == "model.shared.weight").unwrap();
        let shared = tensors.swap_remove(shared);
        for name in ["model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"] {
            tensors.push(OwnedTensor {
                name: name.to_owned(),
                dtype: shared.dtype,
                shape: shared.shape.clone(),
                bytes: shared.bytes.clone(),
            });
        }
        tensors
    });
    set(&folder, "config.json", "/share_encoder_decoder_embeddings", json!(false));
    let apart = load_seq2seq(folder.path()).unwrap();
    let shared = load_seq2seq(&data("marian")).unwrap();
    assert!(apart.spec().weight_bytes > shared.spec().weight_bytes);
    let logits = [apart, shared].map(|model| first_logits(&model, 686));
    assert!(logits[0] == logits[1]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]
    /// Any bytes anywhere in a configuration: an error or a model, but no panic.
    #[test]
    fn a_damaged_configuration_never_panics(
        model in 0usize..4, at in any::<u16>(), bytes in any::<[u8; 2]>(), digit in any::<bool>(),
    ) {
        let folder = copy_of(["mt5", "bart", "marian", "t5-relu-tied"][model]);
        let path = folder.path().join("config.json");
        let mut config = fs::read(&path).unwrap();
        let at = usize::from(at) % (config.len() - 1);
        let bytes = if digit { bytes.map(|byte| b'0' + byte % 10) } else { bytes };
        config[at..at + 2].copy_from_slice(&bytes);
        fs::write(&path, config).unwrap();
        if let Err(error) = load_seq2seq(folder.path()) {
            assert!(error.to_string().contains(&folder.path().display().to_string()), "{error}");
        }
    }
}
