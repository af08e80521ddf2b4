//! Folders of transformers 5 and sentence-transformers 6 give the same rows as older ones.

use emberd_engine::WeightType;
use emberd_engine::{folder_need, load_folder, load_ranker};
use emberd_protocol::ScoreActivation;
use serde_json::{Value, json};

use tempfile::TempDir;

use crate::support::{
    assert_close, compute, copy_of, embed, json as json_file, load, texts, write,
};

/// Changes files: a list is a whole file, and null removes a key.
fn apply(folder: &TempDir, changes: &Value) {
    for (name, change) in changes.as_object().unwrap() {
        let path = folder.path().join(name);
        let Some(change) = change.as_object() else {
            std::fs::write(path, change.to_string()).unwrap();
            continue;
        };
        let file = std::fs::read(&path).unwrap_or_else(|_| b"{}".to_vec());
        let mut file: serde_json::Map<String, Value> = serde_json::from_slice(&file).unwrap();
        for (key, value) in change {
            file.remove(key);
            if !value.is_null() {
                file.insert(key.clone(), value.clone());
            }
        }
        std::fs::write(path, Value::Object(file).to_string()).unwrap();
    }
}

#[test]
fn settings_in_other_spellings_count_as_in_the_library() {
    let expected = json_file("expected/config-variants.json");
    let texts: Vec<String> = serde_json::from_value(expected["texts"].clone()).unwrap();
    let pairs: Vec<(String, String)> = serde_json::from_value(expected["pairs"].clone()).unwrap();
    for variant in expected["variants"].as_array().unwrap() {
        let name = variant["model"].as_str().unwrap();
        let want: Vec<Vec<f32>> = serde_json::from_value(variant["rows"].clone()).unwrap();
        let folder = copy_of(name);
        apply(&folder, &variant["changes"]);
        let got = if name == "cross-encoder" {
            let head = load_ranker(folder.path()).unwrap();
            let pairs = pairs.iter().map(|(a, b)| head.model.tokenize_pair(a, b).unwrap());
            let pairs: Vec<_> = pairs.collect();
            let mut scores = compute(&head.model, &pairs.iter().collect::<Vec<_>>());
            if head.activation == ScoreActivation::Sigmoid {
                scores.iter_mut().flatten().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp()));
            }
            scores
        } else {
            embed(&load_folder(folder.path()).unwrap(), &texts)
        };
        let largest = got.iter().flatten().zip(want.iter().flatten());
        let largest = largest.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest <= 1e-5, "{name}, {}: {largest}", variant["changes"]);
        // The folder has another default.
        let plain = if name == "cross-encoder" { continue } else { embed(&load(name), &texts) };
        let same = plain == got;
        let is_default = variant["changes"].to_string().contains("null");
        assert!(!same || is_default, "{name}, {}: changes nothing", variant["changes"]);
    }
}

#[test]
fn unsupported_settings_that_would_change_rows_are_refused_by_name() {
    for (changes, named) in [
        (
            json!({"sentence_bert_config.json": {"config_args": {"num_hidden_layers": 1}}}),
            "num_hidden_layers",
        ),
        (
            json!({"sentence_bert_config.json": {"config_kwargs": {"hidden_act": "relu"}}}),
            "hidden_act",
        ),
        (json!({"sentence_bert_config.json": {"model_args": {"gguf_file": "x"}}}), "gguf_file"),
        (
            json!({"sentence_bert_config.json": {"processing_kwargs": {"text": {"add_special_tokens": false}}}}),
            "add_special_tokens",
        ),
        (
            json!({"sentence_bert_config.json": {"modality_config": {"text": {"method_output_name": ["hidden_states", 1]}}}}),
            "hidden_states",
        ),
        (
            json!({"sentence_bert_config.json": {"transformer_task": "text-generation"}}),
            "text-generation",
        ),
        (
            json!({"sentence_bert_config.json": {"processing_kwargs": {"common": {"max_length": 9}}}}),
            "max_length",
        ),
        (
            json!({"sentence_bert_config.json": {"processing_kwargs": {"text": {"truncation": "only_first"}}}}),
            "only_first",
        ),
        (
            json!({"sentence_bert_config.json": {"tokenizer_name_or_path": "other/model"}}),
            "other/model",
        ),
    ] {
        let folder = copy_of("bert-mean-norm");
        apply(&folder, &changes);
        let error = load_folder(folder.path()).unwrap_err().to_string();
        assert!(error.contains(named) && error.contains("sentence_bert_config"), "{error}");
    }
    // Settings that change nothing are accepted.
    let folder = copy_of("bert-mean-norm");
    let harmless = json!({"model_args": {"attn_implementation": "eager", "torch_dtype": "float32"},
        "tokenizer_args": {"padding_side": "left"}, "config_args": {}});
    apply(&folder, &json!({ "sentence_bert_config.json": harmless }));
    let texts = &texts()[..5];
    assert_eq!(
        embed(&load_folder(folder.path()).unwrap(), texts),
        embed(&load("bert-mean-norm"), texts)
    );
    let folder = copy_of("qwen3-last");
    apply(&folder, &json!({"config.json": {"rope_parameters": {"partial_rotary_factor": 0.5}}}));
    let error = load_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("partial_rotary_factor"), "{error}");
}

#[test]
fn rotary_bases_may_be_given_by_kind_of_attention() {
    for (name, global, local) in [
        ("modernbert-cls", "global_rope_theta", "local_rope_theta"),
        ("gemma3-mean-dense2", "rope_theta", "rope_local_base_freq"),
    ] {
        let folder = copy_of(name);
        let file = folder.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let map = config.as_object_mut().unwrap();
        let mut base = |key: &str| json!({"rope_type": "default", "rope_theta": map.remove(key)});
        let bases = json!({"full_attention": base(global), "sliding_attention": base(local)});
        let every = map.remove("global_attn_every_n_layers").and_then(|every| every.as_u64());
        map.insert("rope_parameters".into(), bases);
        if let Some(every) = every {
            let layers = map["num_hidden_layers"].as_u64().unwrap();
            let kind = |i| if i % every == 0 { "full_attention" } else { "sliding_attention" };
            map.insert("layer_types".into(), (0..layers).map(kind).collect::<Vec<_>>().into());
        }
        write(&folder, "config.json", &config);
        let texts = &texts()[..8];
        let rows = embed(&load_folder(folder.path()).unwrap(), texts);
        assert_close(&rows, &embed(&load(name), texts), 1e-6);

        config["rope_parameters"]["sliding_attention"] = json!({"rope_theta": 50.0});
        write(&folder, "config.json", &config);
        let other = embed(&load_folder(folder.path()).unwrap(), texts);
        assert_ne!(other, rows, "{name}: the base counts");
        config["rope_parameters"]["full_attention"]["rope_type"] = "linear".into();
        write(&folder, "config.json", &config);
        assert!(load_folder(folder.path()).unwrap_err().to_string().contains("linear"), "{name}");
    }
}

#[test]
fn a_cross_encoder_with_modules_and_its_activation_in_a_file_of_its_own_is_loaded() {
    let folder = copy_of("cross-encoder");
    let module = "sentence_transformers.base.modules.transformer.Transformer";
    write(&folder, "modules.json", &json!([{"idx": 0, "name": "0", "path": "", "type": module}]));
    let own = |class| json!({"model_type": "CrossEncoder", "activation_fn": class});
    let file = "config_sentence_transformers.json";
    write(&folder, file, &own("torch.nn.modules.linear.Identity"));
    assert_eq!(load_ranker(folder.path()).unwrap().activation, ScoreActivation::Identity);
    assert!(folder_need(folder.path(), 1, 512, 512, WeightType::F32).unwrap().cpu_bytes > 0);
    // A class from outside torch is ignored, as if it were missing.
    write(&folder, file, &own("somebody.acts.Identity"));
    assert_eq!(load_ranker(folder.path()).unwrap().activation, ScoreActivation::Sigmoid);
}
