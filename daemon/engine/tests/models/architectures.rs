use emberd_engine::{LoadError, load_folder};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{assert_close, copy_of, embed, load, rewrite_weights, texts};

/// Sets a value of `config.json`.
fn put(folder: &TempDir, setting: &str, value: Value) {
    let file = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config[setting] = value;
    std::fs::write(file, config.to_string()).unwrap();
}

fn error_with(name: &str, setting: &str, value: Value) -> LoadError {
    let folder = copy_of(name);
    put(&folder, setting, value);
    load_folder(folder.path()).unwrap_err()
}

#[test]
fn settings_that_would_change_the_rows_are_refused_with_what_is_supported() {
    for (name, setting, value, supported) in [
        ("roberta-mean-norm", "position_embedding_type", json!("relative_key"), "absolute"),
        ("roberta-mean-norm", "is_decoder", json!(true), "of an encoder"),
        ("distilbert-mean", "activation", json!("mish"), "gelu"),
        ("electra-mean", "position_embedding_type", json!("relative_key"), "absolute"),
        ("albert-mean", "hidden_act", json!("mish"), "gelu_new"),
        ("modernbert-cls", "classifier_pooling", json!("max"), "cls, mean"),
        ("modernbert-cls", "hidden_activation", json!("mish"), "gelu"),
        ("qwen3-last", "use_sliding_window", json!(true), "false"),
        ("qwen3-last", "rope_scaling", json!({ "rope_type": "yarn" }), "default"),
        ("qwen3-last", "rope_scaling", json!({ "type": "linear", "factor": 2 }), "null, default"),
        ("qwen3-last", "rope_parameters", json!({ "rope_type": "yarn" }), "default"),
        ("gemma3-mean-dense2", "use_bidirectional_attention", json!(false), "EmbeddingGemma"),
        ("gemma3-mean-dense2", "attn_logit_softcapping", json!(50.0), "null"),
        ("gemma3-mean-dense2", "layer_types", json!(["a", "b", "c"]), "full_attention"),
        ("sentence-t5", "dense_act_fn", json!("mish"), "gelu_new"),
    ] {
        let error = error_with(name, setting, value);
        assert!(matches!(error, LoadError::Unsupported { .. }), "{name} {setting}: {error:?}");
        assert!(error.to_string().contains(supported), "{error}");
    }
}

#[test]
fn impossible_sizes_are_refused_before_allocation() {
    for (name, setting, value) in [
        ("roberta-mean-norm", "pad_token_id", json!(65)),
        ("distilbert-mean", "n_heads", json!(5)),
        ("electra-mean", "num_attention_heads", json!(5)),
        ("albert-mean", "num_hidden_layers", json!(1 << 28)),
        ("albert-mean", "inner_group_num", json!(1 << 28)),
        ("albert-mean", "num_hidden_groups", json!(4)),
        ("mpnet-mean-norm", "relative_attention_num_buckets", json!(30)),
        ("sentence-t5", "relative_attention_max_distance", json!(8)),
        ("modernbert-cls", "num_attention_heads", json!(32)),
        ("qwen3-last", "num_key_value_heads", json!(3)),
        ("qwen3-last", "head_dim", json!(15)),
        ("gemma3-mean-dense2", "layer_types", json!(["full_attention"])),
    ] {
        let error = error_with(name, setting, value);
        assert!(matches!(error, LoadError::Setting { .. }), "{name} {setting}: {error:?}");
    }
    for (name, setting) in [
        ("sentence-t5", "d_kv"),
        ("sentence-t5", "d_ff"),
        ("qwen3-last", "head_dim"),
        ("qwen3-last", "intermediate_size"),
        ("modernbert-cls", "intermediate_size"),
        ("distilbert-mean", "hidden_dim"),
        ("electra-mean", "embedding_size"),
        ("albert-mean", "embedding_size"),
    ] {
        let error = error_with(name, setting, json!(1 << 28));
        assert!(matches!(error, LoadError::TensorShape { .. }), "{name} {setting}: {error:?}");
    }
}

#[test]
fn settings_of_another_kind_are_refused_by_name() {
    for (name, setting, value) in [
        ("distilbert-mean", "dim", Value::Null),
        ("qwen3-last", "rope_theta", json!(-1.0)),
        ("gemma3-mean-dense2", "query_pre_attn_scalar", json!(0)),
        ("modernbert-cls", "norm_bias", json!("no")),
        ("roberta-mean-norm", "pad_token_id", json!(-1)),
        ("mpnet-mean-norm", "hidden_size", json!("wide")),
        ("modernbert-cls", "classifier_pooling", json!(1)),
        ("distilbert-mean", "activation", json!(true)),
        ("sentence-t5", "dense_act_fn", json!(["relu"])),
        ("sentence-t5", "is_gated_act", json!("yes")),
        ("sentence-t5", "feed_forward_proj", json!(0)),
    ] {
        let error = error_with(name, setting, value);
        let LoadError::Json { source, .. } = &error else { panic!("{name} {setting}: {error:?}") };
        assert!(source.to_string().contains(setting), "{source}");
    }
}

#[test]
fn a_layer_that_the_configuration_lacks_is_refused() {
    for (name, setting) in [
        ("roberta-mean-norm", "num_hidden_layers"),
        ("distilbert-mean", "n_layers"),
        ("electra-mean", "num_hidden_layers"),
        ("albert-mean", "num_hidden_groups"),
        ("albert-mean", "inner_group_num"),
        ("mpnet-mean-norm", "num_hidden_layers"),
        ("modernbert-cls", "num_hidden_layers"),
        ("qwen3-last", "num_hidden_layers"),
        ("sentence-t5", "num_layers"),
    ] {
        let error = error_with(name, setting, json!(1));
        let LoadError::ExtraTensor { tensor, .. } = &error else { panic!("{name}: {error:?}") };
        assert!(tensor.contains(".1."), "{tensor}");
    }
}

/// Files that were converted from TensorFlow, such as those of `bert-base-uncased`, have these names.
#[test]
fn norms_under_their_old_names_are_understood() {
    let folder = copy_of("bert-mean-norm");
    rewrite_weights(&folder, |mut tensors| {
        for tensor in &mut tensors {
            tensor.name = tensor
                .name
                .replace("LayerNorm.weight", "LayerNorm.gamma")
                .replace("LayerNorm.bias", "LayerNorm.beta");
        }
        tensors
    });
    let renamed = load_folder(folder.path()).unwrap();
    assert_close(&embed(&renamed, &texts()), &embed(&load("bert-mean-norm"), &texts()), 0.0);
}

/// Files with a head have a prefix before the names of the encoder.
#[test]
fn names_with_the_prefix_of_a_whole_model_are_understood() {
    for (name, prefix) in [
        ("roberta-mean-norm", "roberta."),
        ("distilbert-mean", "distilbert."),
        ("electra-mean", "electra."),
        ("albert-mean", "albert."),
        ("mpnet-mean-norm", "mpnet."),
        ("modernbert-cls", "model."),
        ("qwen3-last", "model."),
        ("gemma3-mean-dense2", "model."),
    ] {
        let folder = copy_of(name);
        rewrite_weights(&folder, |mut tensors| {
            tensors.iter_mut().for_each(|tensor| tensor.name = format!("{prefix}{}", tensor.name));
            tensors
        });
        let whole = load_folder(folder.path()).unwrap();
        assert_close(&embed(&whole, &texts()), &embed(&load(name), &texts()), 0.0);
    }
}

/// Layers of ALBERT share their blocks, so that more layers take no more memory.
#[test]
fn shared_weights_are_held_once() {
    let [three, twelve] = [3, 12].map(|layers| {
        let folder = copy_of("albert-mean");
        put(&folder, "num_hidden_layers", json!(layers));
        let model = load_folder(folder.path()).unwrap();
        (model.spec().weight_bytes, embed(&model, &texts()))
    });
    assert_eq!(three.0, twelve.0);
    assert_ne!(three.1, twelve.1);
}
