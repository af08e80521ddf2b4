use std::sync::Arc;

use emberd_daemon::engine::load_folder;
use emberd_daemon::engine::model::EmbeddingModel;
use half::{bf16, f16};
use safetensors::tensor::Dtype;
use serde_json::json;

use crate::support::{
    assert_close, copy_of, data, embed, expected, load, rewrite_weights, set, texts,
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
