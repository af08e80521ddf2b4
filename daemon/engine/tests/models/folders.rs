use std::sync::Arc;

use candle_core::Device;
use emberd_engine::{EmbeddingModel, WeightType};
use emberd_engine::{load_folder, load_folder_on};
use half::{bf16, f16};
use safetensors::tensor::Dtype;
use serde_json::json;

use crate::support::{
    add, assert_close, copy_of, data, embed, expected, load, rewrite_weights, save, set, texts,
    write,
};

#[test]
fn the_spec_matches_the_files() {
    let model = load("bert-mean-norm");
    let spec = model.spec();
    assert_eq!(spec.architecture, "bert");
    assert_eq!((spec.dimension, spec.max_tokens, spec.normalized), (32, 64, true));
    // All tensors apart from the pooler's, which is not used.
    let tensors = std::fs::metadata(data("bert-mean-norm/model.safetensors")).unwrap().len();
    assert!((400_000..tensors).contains(&spec.weight_bytes), "{}", spec.weight_bytes);
    assert_eq!(load("static-embedding").spec().architecture, "static");
}

#[test]
fn a_folder_without_modules_is_mean_pooled_and_not_normalised() {
    let folder = copy_of("bert-mean-norm");
    std::fs::remove_file(folder.path().join("modules.json")).unwrap();
    let model = load_folder(folder.path()).unwrap();
    assert!(!model.spec().normalized);
    assert_close(&embed(&model, &texts()), &expected("bert-mean-norm", "pooling.mean"), 1e-5);
}

#[test]
fn names_with_the_prefix_of_a_whole_model_are_understood() {
    let folder = copy_of("bert-mean-norm");
    rewrite_weights(&folder, |mut tensors| {
        tensors.iter_mut().for_each(|tensor| tensor.name = format!("bert.{}", tensor.name));
        tensors
    });
    let model = load_folder(folder.path()).unwrap();
    assert_close(&embed(&model, &texts()), &expected("bert-mean-norm", "embeddings"), 2e-6);
}

/// Weights of 16 bits give exactly the rows of the same weights written as f32.
#[test]
fn half_precision_weights_are_widened_exactly() {
    let narrow = |dtype, x: f32| match dtype {
        Dtype::F16 => (f16::from_f32(x).to_le_bytes(), f16::from_f32(x).to_f32()),
        _ => (bf16::from_f32(x).to_le_bytes(), bf16::from_f32(x).to_f32()),
    };
    for dtype in [Dtype::F16, Dtype::BF16] {
        let rows = [true, false].map(|stored_narrow| {
            let folder = copy_of("bert-mean-norm");
            rewrite_weights(&folder, |mut tensors| {
                for tensor in &mut tensors {
                    let values = tensor.bytes.as_chunks::<4>().0.iter();
                    let values = values.map(|&bytes| narrow(dtype, f32::from_le_bytes(bytes)));
                    if stored_narrow {
                        tensor.bytes = values.flat_map(|(bytes, _)| bytes).collect();
                        tensor.dtype = dtype;
                    } else {
                        tensor.bytes = values.flat_map(|(_, wide)| wide.to_le_bytes()).collect();
                    }
                }
                tensors
            });
            embed(&load_folder(folder.path()).unwrap(), &texts())
        });
        assert_eq!(rows[0], rows[1]);
        assert_close(&rows[0], &expected("bert-mean-norm", "embeddings"), 0.05);
        assert_ne!(rows[0], embed(&load("bert-mean-norm"), &texts()), "{dtype:?} loses digits");
    }
}

/// A file of 16-bit numbers gives the same rows, bit for bit, whether its weights are held in 16 or in 32
/// bits; 16 bits take half the memory.
#[test]
fn weights_held_as_16_bits_are_those_of_a_file_of_16_bits() {
    let texts = &texts()[..10];
    for name in [
        "bert-mean-norm",
        "roberta-mean-norm",
        "distilbert-mean",
        "mpnet-mean-norm",
        "modernbert-cls",
        "qwen3-last",
        "gemma3-mean-dense2",
        "sentence-t5",
    ] {
        let folder = copy_of(name);
        rewrite_weights(&folder, |mut tensors| {
            for tensor in &mut tensors {
                let values = tensor.bytes.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x));
                let values = values.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect();
                (tensor.bytes, tensor.dtype) = (values, Dtype::BF16);
            }
            tensors
        });
        let load = |held_as| load_folder_on(folder.path(), &Device::Cpu, held_as).unwrap();
        let [wide, narrow] = [WeightType::F32, WeightType::Bf16].map(load);
        assert_eq!(embed(&wide, texts), embed(&narrow, texts), "{name}");
        let bytes = |model: &Arc<dyn EmbeddingModel>| model.spec().weight_bytes;
        // Norms, biases and positions are small, and stay as they are.
        assert!(bytes(&narrow) * 100 < bytes(&wide) * 60, "{name}: {}", bytes(&narrow));
        assert_ne!(wide.fingerprint(), narrow.fingerprint());
        // A file of 32 bits is rounded, and otherwise the same.
        let rounded = load_folder_on(&data(name), &Device::Cpu, WeightType::Bf16).unwrap();
        assert_eq!(embed(&rounded, texts).len(), texts.len());
    }
}

#[test]
fn the_shortest_of_the_limits_holds() {
    let folder = copy_of("bert-mean-norm");
    set(&folder, "sentence_bert_config.json", "/max_seq_length", json!(10));
    assert_eq!(load_folder(folder.path()).unwrap().spec().max_tokens, 10);
    set(&folder, "sentence_bert_config.json", "/max_seq_length", json!(1000));
    assert_eq!(load_folder(folder.path()).unwrap().spec().max_tokens, 64);
    set(&folder, "tokenizer_config.json", "/model_max_length", json!(20));
    std::fs::remove_file(folder.path().join("sentence_bert_config.json")).unwrap();
    assert_eq!(load_folder(folder.path()).unwrap().spec().max_tokens, 20);
    set(&folder, "tokenizer_config.json", "/model_max_length", json!(1e30));
    assert_eq!(load_folder(folder.path()).unwrap().spec().max_tokens, 64);
}

#[test]
fn a_text_loses_its_beginning_where_the_tokenizer_says_so() {
    for name in ["bert-mean-norm", "roberta-mean-norm", "qwen3-last", "sentence-t5"] {
        let folder = copy_of(name);
        // No limit, to get the whole texts; the tokenizer may have a limit of its own.
        let right = load(name);
        let words = |count| (0..count).map(|n| format!("word{n} ")).collect::<String>();
        let short = right.tokenize(words(10).trim()).unwrap();
        add(&folder, "tokenizer_config.json", "truncation_side", json!("left"));
        add(&folder, "sentence_bert_config.json", "max_seq_length", json!(12));
        let left = load_folder(folder.path()).unwrap();
        let cut = left.tokenize(&words(10)).unwrap();
        let around = right.tokenize("").unwrap().ids.len();
        assert_eq!((cut.ids.len(), cut.truncated, short.truncated), (12, true, false), "{name}");
        // Special tokens stay on both sides.
        let front = around - 1;
        assert_eq!(cut.ids[..front], short.ids[..front], "{name}");
        assert!(short.ids.ends_with(&cut.ids[front..]), "{name}: {:?} of {:?}", cut.ids, short.ids);
        // Far more tokens than one chunk has.
        let long = left.tokenize(&format!("{}{}", words(20_000), words(10))).unwrap();
        assert_eq!((long.ids, long.truncated), (cut.ids, true), "{name}");
        // The tokenizer's own file counts if no other sets the side.
        let folder = copy_of(name);
        let own =
            json!({"direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 0});
        add(&folder, "tokenizer.json", "truncation", own);
        add(&folder, "tokenizer_config.json", "truncation_side", json!(null));
        add(&folder, "sentence_bert_config.json", "max_seq_length", json!(12));
        let by_file = load_folder(folder.path()).unwrap().tokenize(&words(10)).unwrap();
        assert_eq!(by_file.ids, left.tokenize(&words(10)).unwrap().ids, "{name}");
    }
}

#[test]
fn lower_case_is_made_only_where_the_model_asks_for_it() {
    let folder = copy_of("bert-cls-prompts");
    // The tokenizer's own lower-casing is removed, so that only the setting is left.
    set(&folder, "tokenizer.json", "/normalizer", json!(null));
    let ids = |text| load_folder(folder.path()).unwrap().tokenize(text).unwrap().ids;
    assert_ne!(ids("HELLO"), ids("hello"));
    set(&folder, "sentence_bert_config.json", "/do_lower_case", json!(true));
    assert_eq!(ids("HELLO"), ids("hello"));
}

#[test]
fn the_default_prompt_goes_in_front_of_every_text() {
    let folder = copy_of("bert-cls-prompts");
    let plain = load_folder(folder.path()).unwrap();
    let file = "config_sentence_transformers.json";
    set(&folder, file, "/default_prompt_name", json!("query"));
    let prompted = load_folder(folder.path()).unwrap();
    let prompt = "Represent this sentence for searching relevant passages: ";
    let ids = |model: &Arc<dyn EmbeddingModel>, text: &str| model.tokenize(text).unwrap().ids;
    assert_eq!(ids(&prompted, " a text"), ids(&plain, &format!("{prompt} a text")));
    assert_eq!(ids(&prompted, ""), ids(&plain, prompt));
    set(&folder, file, "/default_prompt_name", json!("nowhere"));
    let error = load_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains(file) && error.contains("nowhere"), "{error}");
}

#[test]
fn other_activations_are_other_rows() {
    let plain = embed(&load("bert-mean-norm"), &texts());
    for (name, at_most) in [("gelu_new", 0.01), ("gelu_pytorch_tanh", 0.01), ("relu", 2.0)] {
        let folder = copy_of("bert-mean-norm");
        set(&folder, "config.json", "/hidden_act", json!(name));
        let rows = embed(&load_folder(folder.path()).unwrap(), &texts());
        assert_ne!(rows, plain);
        assert_close(&rows, &plain, at_most);
    }
}

#[test]
fn modules_are_known_by_their_class_wherever_the_library_keeps_it() {
    for home in ["sentence_transformers.models", "sentence_transformers.base.modules.transformer"] {
        let folder = copy_of("bert-mean-dense-tanh");
        for (i, class) in ["Transformer", "Pooling", "Dense", "Normalize"].iter().enumerate() {
            set(&folder, "modules.json", &format!("/{i}/type"), json!(format!("{home}.{class}")));
        }
        let rows = embed(&load_folder(folder.path()).unwrap(), &texts());
        assert_close(&rows, &expected("bert-mean-dense-tanh", "embeddings"), 1e-5);
    }
}

#[test]
fn every_pooling_and_their_join_equal_the_library_in_both_spellings() {
    let pooled = |config: &serde_json::Value| {
        let folder = copy_of("bert-mean-norm");
        let modules: Vec<serde_json::Value> =
            serde_json::from_slice(&std::fs::read(data("bert-mean-norm/modules.json")).unwrap())
                .unwrap();
        write(&folder, "modules.json", &json!(modules[..2]));
        write(&folder, "1_Pooling/config.json", config);
        embed(&load_folder(folder.path()).unwrap(), &texts())
    };
    let of = |tensor: &str| expected("bert-mean-norm", &format!("pooling.{tensor}"));
    for (new, old) in [
        ("cls", "cls_token"),
        ("max", "max_tokens"),
        ("mean", "mean_tokens"),
        ("mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
        ("weightedmean", "weightedmean_tokens"),
        ("lasttoken", "lasttoken"),
    ] {
        let by_flag =
            pooled(&json!({"word_embedding_dimension": 32, format!("pooling_mode_{old}"): true}));
        // These rows are not normalised: their values go up to 30, where 1e-5 is the last digit.
        assert_close(&by_flag, &of(new), 5e-5);
        assert_eq!(pooled(&json!({"embedding_dimension": 32, "pooling_mode": new})), by_flag);
    }
    let flags = json!({
        "pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true,
        "pooling_mode_cls_token": true, "pooling_mode_lasttoken": false,
    });
    assert_close(&pooled(&flags), &of("cls+max+mean"), 1e-5);
    let listed = pooled(&json!({"pooling_mode": ["lasttoken", "mean"]}));
    let joined: Vec<Vec<f32>> = of("lasttoken")
        .into_iter()
        .zip(of("mean"))
        .map(|(mut last, mean)| {
            last.extend(mean);
            last
        })
        .collect();
    assert_close(&listed, &joined, 1e-5);
}

#[test]
fn modules_after_pooling_run_in_order() {
    let chain = |classes: &[&str]| {
        let folder = copy_of("bert-mean-norm");
        let module = |(i, class): (usize, &&str)| {
            let path = if i == 0 { String::new() } else { format!("{i}_{class}") };
            let kind = format!("sentence_transformers.models.{class}");
            json!({"idx": i, "name": i.to_string(), "path": path, "type": kind})
        };
        let modules: Vec<_> = classes.iter().enumerate().map(module).collect();
        write(&folder, "modules.json", &json!(modules));
        for (i, class) in classes.iter().enumerate().skip(2) {
            let module = format!("{i}_{class}");
            std::fs::create_dir_all(folder.path().join(&module)).unwrap();
            let tensors = match *class {
                "LayerNorm" => {
                    write(&folder, &format!("{module}/config.json"), &json!({"dimension": 32}));
                    vec![
                        ("norm.weight", vec![32], vec![2.0; 32]),
                        ("norm.bias", vec![32], vec![0.5; 32]),
                    ]
                }
                "Dense" => {
                    let dense = json!({
                        "in_features": 32, "out_features": 2, "bias": false,
                        "activation_function": "torch.nn.modules.activation.ReLU",
                    });
                    write(&folder, &format!("{module}/config.json"), &dense);
                    // The sum of a row, and its negative.
                    let weight = [[1.0; 32], [-1.0; 32]].concat();
                    vec![("linear.weight", vec![2, 32], weight)]
                }
                _ => continue,
            };
            save(&folder.path().join(&module).join("model.safetensors"), &tensors);
        }
        let model = load_folder(folder.path()).unwrap();
        (model.spec().normalized, embed(&model, &texts()))
    };
    let pooled = expected("bert-mean-norm", "pooling.mean");
    let (normalized, rows) = chain(&["Transformer", "Pooling", "Dropout", "LayerNorm"]);
    assert!(!normalized);
    for (row, of) in rows.iter().zip(&pooled) {
        let mean = of.iter().sum::<f32>() / 32.0;
        let deviation = (of.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 32.0 + 1e-5).sqrt();
        for (got, x) in row.iter().zip(of) {
            let want = (x - mean) / deviation * 2.0 + 0.5;
            assert!((got - want).abs() < 1e-4, "{got} is not {want}");
        }
    }
    let (normalized, rows) = chain(&["Transformer", "Pooling", "Normalize", "Dense"]);
    assert!(!normalized);
    for (row, of) in rows.iter().zip(&pooled) {
        let length = of.iter().map(|x| x * x).sum::<f32>().sqrt();
        let sum = of.iter().sum::<f32>() / length;
        for (got, want) in row.iter().zip([sum.max(0.0), (-sum).max(0.0)]) {
            assert!((got - want).abs() < 1e-4, "{got} is not {want}");
        }
    }
    assert!(chain(&["Transformer", "Pooling", "Dense", "Normalize"]).0);
}

#[test]
fn the_settings_of_the_whole_model_are_in_the_spec() {
    let folder = copy_of("bert-cls-prompts");
    let file = "config_sentence_transformers.json";
    set(&folder, file, "/similarity_fn_name", json!(null));
    let spec = load_folder(folder.path()).unwrap().spec().clone();
    assert_eq!(spec.similarity.as_deref(), Some("cosine"), "the library's own default");
    assert_eq!(spec.prompts.keys().collect::<Vec<_>>(), ["document", "passage", "query"]);
    assert_eq!((spec.default_prompt, spec.truncate_dim), (None, None));
    let all = json!({
        "prompts": {"query": "q: "}, "default_prompt_name": "query", "truncate_dim": 8,
        "similarity_fn_name": "dot",
    });
    write(&folder, file, &all);
    let spec = load_folder(folder.path()).unwrap().spec().clone();
    assert_eq!((spec.similarity.as_deref(), spec.truncate_dim), (Some("dot"), Some(8)));
    assert_eq!(
        (spec.default_prompt.as_deref(), spec.prompts["query"].as_str()),
        (Some("query"), "q: ")
    );
    assert_eq!(spec.dimension, 36, "rows are made whole, and cut where they are used");
}
