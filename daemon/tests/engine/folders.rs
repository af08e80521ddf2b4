use std::sync::Arc;

use emberd_daemon::engine::load_folder;
use emberd_daemon::engine::model::EmbeddingModel;
use half::{bf16, f16};
use safetensors::tensor::Dtype;
use serde_json::json;

use tempfile::TempDir;

use crate::support::{
    assert_close, copy_of, data, embed, expected, load, rewrite_weights, save, set, texts, write,
};

#[test]
fn the_card_tells_what_the_files_say() {
    let model = load("bert-mean-norm");
    let card = model.card();
    assert_eq!(card.architecture, "bert");
    assert_eq!((card.dimension, card.max_tokens, card.normalized), (32, 64, true));
    // All tensors but the pooler's, which nothing reads.
    let tensors = std::fs::metadata(data("bert-mean-norm/model.safetensors")).unwrap().len();
    assert!((400_000..tensors).contains(&card.weight_bytes), "{}", card.weight_bytes);
    assert_eq!(load("static-embedding").card().architecture, "static");
}

#[test]
fn a_folder_without_modules_is_mean_pooled_and_not_normalised() {
    let folder = copy_of("bert-mean-norm");
    std::fs::remove_file(folder.path().join("modules.json")).unwrap();
    let model = load_folder(folder.path()).unwrap();
    assert!(!model.card().normalized);
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

#[test]
fn the_shortest_of_the_limits_holds() {
    let folder = copy_of("bert-mean-norm");
    set(&folder, "sentence_bert_config.json", "/max_seq_length", json!(10));
    assert_eq!(load_folder(folder.path()).unwrap().card().max_tokens, 10);
    set(&folder, "sentence_bert_config.json", "/max_seq_length", json!(1000));
    assert_eq!(load_folder(folder.path()).unwrap().card().max_tokens, 64);
    set(&folder, "tokenizer_config.json", "/model_max_length", json!(20));
    std::fs::remove_file(folder.path().join("sentence_bert_config.json")).unwrap();
    assert_eq!(load_folder(folder.path()).unwrap().card().max_tokens, 20);
    set(&folder, "tokenizer_config.json", "/model_max_length", json!(1e30));
    assert_eq!(load_folder(folder.path()).unwrap().card().max_tokens, 64);
}

#[test]
fn lower_case_is_made_only_where_the_model_asks_for_it() {
    let folder = copy_of("bert-cls-prompts");
    // The tokenizer's own folding is taken away, so that only the setting is left.
    set(&folder, "tokenizer.json", "/normalizer", json!(null));
    let ids = |text| load_folder(folder.path()).unwrap().encode(text).unwrap().ids;
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
    let ids = |model: &Arc<dyn EmbeddingModel>, text: &str| model.encode(text).unwrap().ids;
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

/// Of the last hidden rows of one text, as the reference has them.
#[test]
fn poolings_are_joined_in_the_library_s_order_and_both_spellings_mean_the_same() {
    let file = "1_Pooling/config.json";
    let pooled = |change: &dyn Fn(&TempDir)| {
        let folder = copy_of("bert-max-nonorm");
        change(&folder);
        embed(&load_folder(folder.path()).unwrap(), &texts())
    };
    let of = |mode: &str| {
        let new = json!({"embedding_dimension": 32, "pooling_mode": mode});
        pooled(&|folder| write(folder, file, &new))
    };
    let single =
        ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"].map(of);
    let joined = |modes: &[usize]| -> Vec<Vec<f32>> {
        let row = |at: usize| modes.iter().flat_map(|&mode| single[mode][at].clone()).collect();
        (0..texts().len()).map(row).collect()
    };
    let every_old = pooled(&|folder| {
        for mode in
            ["cls_token", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
        {
            set(folder, file, &format!("/pooling_mode_{mode}"), json!(true));
        }
    });
    assert_eq!(every_old, joined(&[0, 1, 2, 3, 4, 5]));
    let listed = json!({"embedding_dimension": 32, "pooling_mode": ["lasttoken", "mean"]});
    assert_eq!(pooled(&|folder| write(folder, file, &listed)), joined(&[5, 2]));
    assert_close(&single[1], &expected("bert-max-nonorm", "embeddings"), 1e-5);
    // By the rows of the tokens that the reference has of one text.
    let hidden = expected("bert-max-nonorm", "last_hidden_state.1");
    let tokens = f32::from(u16::try_from(hidden.len()).unwrap());
    for column in 0..32 {
        let values: Vec<f32> = hidden.iter().map(|token| token[column]).collect();
        let sum: f32 = values.iter().sum();
        let weighted: f32 = values.iter().zip(1u16..).map(|(x, i)| f32::from(i) * x).sum();
        for (mode, want) in [
            (0, values[0]),
            (2, sum / tokens),
            (3, sum / tokens.sqrt()),
            (4, weighted / (tokens * (tokens + 1.0) / 2.0)),
            (5, values[values.len() - 1]),
        ] {
            let got = single[mode][1][column];
            assert!((got - want).abs() < 1e-5, "mode {mode}, column {column}: {got} is not {want}");
        }
    }
}

#[test]
fn what_stands_behind_the_pooling_is_done_in_its_order() {
    let chain = |classes: &[&str]| {
        let folder = copy_of("bert-mean-norm");
        let module = |(i, class): (usize, &&str)| {
            let path = if i == 0 { String::new() } else { format!("{i}_{class}") };
            json!({"idx": i, "name": i.to_string(), "path": path, "type": format!("x.{class}")})
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
        (model.card().normalized, embed(&model, &texts()))
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
fn the_settings_of_the_whole_model_are_told() {
    let folder = copy_of("bert-cls-prompts");
    let file = "config_sentence_transformers.json";
    set(&folder, file, "/similarity_fn_name", json!(null));
    let card = load_folder(folder.path()).unwrap().card().clone();
    assert_eq!(card.similarity.as_deref(), Some("cosine"), "the library's own default");
    assert_eq!(card.prompts.keys().collect::<Vec<_>>(), ["document", "passage", "query"]);
    assert_eq!((card.default_prompt, card.truncate_dim), (None, None));
    let all = json!({
        "prompts": {"query": "q: "}, "default_prompt_name": "query", "truncate_dim": 8,
        "similarity_fn_name": "dot",
    });
    write(&folder, file, &all);
    let card = load_folder(folder.path()).unwrap().card().clone();
    assert_eq!((card.similarity.as_deref(), card.truncate_dim), (Some("dot"), Some(8)));
    assert_eq!(
        (card.default_prompt.as_deref(), card.prompts["query"].as_str()),
        (Some("query"), "q: ")
    );
    assert_eq!(card.dimension, 36, "rows are made whole, and cut where they are used");
}
