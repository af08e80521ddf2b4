use emberd_engine::builtin_static_minilm;

use crate::support::{
    assert_close, embed, embed_prompted, encode, expected, expected_if_any, json, load,
    load_minilm, texts,
};

/// Token ids as the reference tokenizer gives them.
#[track_caller]
fn assert_same_ids(name: &str, model: &std::sync::Arc<dyn emberd_engine::EmbeddingModel>) {
    let want: Vec<Vec<u32>> =
        serde_json::from_value(json(&format!("expected/{name}.json"))["input_ids"].take()).unwrap();
    let got: Vec<Vec<u32>> =
        encode(model, &texts()).into_iter().map(|sequence| sequence.ids).collect();
    assert_eq!(got, want);
}

/// Token ids, rows, and rows of texts behind each prompt in the reference data.
#[track_caller]
fn check(name: &str) {
    let model = load(name);
    assert_same_ids(name, &model);
    assert_close(&embed(&model, &texts()), &expected(name, "embeddings"), TOLERANCE);
    for (prompt, text) in &model.spec().prompts {
        let tensor = format!("embeddings.prompt.{prompt}");
        if let Some(want) = expected_if_any(name, &tensor) {
            assert_close(&embed_prompted(&model, text, &texts()), &want, TOLERANCE);
        }
    }
}

/// The tolerance that the project promises for every model.
const TOLERANCE: f32 = 1e-5;

macro_rules! equals_sentence_transformers {
    ($($(#[$doc:meta])* $test:ident: $name:literal,)*) => {
        $($(#[$doc])* #[test] fn $test() { check($name); })*
    };
}

equals_sentence_transformers! {
    bert_with_mean_pooling: "bert-mean-norm",
    /// Three heads of 12 values: neither is a multiple of a register.
    bert_with_cls_pooling_and_prompts: "bert-cls-prompts",
    bert_with_max_pooling_and_no_normalisation: "bert-max-nonorm",
    bert_with_a_dense_layer_and_prompts_that_are_not_pooled: "bert-mean-dense-tanh",
    roberta: "roberta-mean-norm",
    xlm_r: "xlmr-mean-e5",
    distilbert: "distilbert-mean",
    /// Embeddings narrower than the blocks.
    electra: "electra-mean",
    /// Three layers of two groups, each of two blocks.
    albert: "albert-mean",
    mpnet: "mpnet-mean-norm",
    modernbert: "modernbert-cls",
    /// The last token, with causal attention.
    qwen3: "qwen3-last",
    /// Windows shorter than the texts, and two dense layers.
    gemma3: "gemma3-mean-dense2",
    sentence_t5: "sentence-t5",
    static_embedding: "static-embedding",
}

#[test]
fn builtin_model_equals_numpy() {
    let model = builtin_static_minilm().unwrap();
    let mut reference = json("static-minilm/expected.json");
    let want: Vec<Vec<f32>> = serde_json::from_value(reference["embeddings"].take()).unwrap();
    let rows = embed(&model, &texts());
    assert_close(&rows, &want, 1e-6);
    assert_eq!(rows[0], vec![0.0; 128], "an empty text has no tokens");
    assert_eq!(model.spec().weight_bytes, 30_522 * 128, "the table stays as it is stored");
}

#[test]
fn minilm_equals_sentence_transformers() {
    let Some(model) = load_minilm() else { return };
    assert_same_ids("all-MiniLM-L6-v2", &model);
    assert_close(&embed(&model, &texts()), &expected("all-MiniLM-L6-v2", "embeddings"), 1e-5);
    let sentences: Vec<String> =
        serde_json::from_value(json("expected/all-MiniLM-L6-v2.sts.json")["sentences"].take())
            .unwrap();
    let want = expected("all-MiniLM-L6-v2.sts", "embeddings");
    assert_close(&embed(&model, &sentences), &want, 1e-5);
}
