use emberd_daemon::engine::builtin_static_minilm;

use crate::support::{assert_close, embed, encode, expected, json, load, load_minilm, texts};

/// Token ids as the reference tokenizer gives them.
#[track_caller]
fn assert_same_ids(
    name: &str,
    model: &std::sync::Arc<dyn emberd_daemon::engine::model::EmbeddingModel>,
) {
    let want: Vec<Vec<u32>> =
        serde_json::from_value(json(&format!("expected/{name}.json"))["input_ids"].take()).unwrap();
    let got: Vec<Vec<u32>> =
        encode(model, &texts()).into_iter().map(|sequence| sequence.ids).collect();
    assert_eq!(got, want);
}

#[track_caller]
fn check(name: &str, tolerance: f32) {
    let model = load(name);
    assert_same_ids(name, &model);
    assert_close(&embed(&model, &texts()), &expected(name, "embeddings"), tolerance);
}

#[test]
fn bert_with_mean_pooling_equals_sentence_transformers() {
    check("bert-mean-norm", 2e-6);
}

/// Three heads of 12: neither is a multiple of any register.
#[test]
fn bert_with_cls_pooling_equals_sentence_transformers() {
    check("bert-cls-prompts", 2e-6);
}

#[test]
fn roberta_and_xlm_r_equal_sentence_transformers() {
    check("roberta-mean-norm", 2e-6);
    check("xlmr-mean-e5", 2e-6);
}

#[test]
fn distilbert_equals_sentence_transformers() {
    check("distilbert-mean", 1e-5);
}

#[test]
fn mpnet_equals_sentence_transformers() {
    check("mpnet-mean-norm", 2e-6);
}

#[test]
fn static_embedding_equals_sentence_transformers() {
    check("static-embedding", 1e-6);
}

#[test]
fn builtin_model_equals_numpy() {
    let model = builtin_static_minilm().unwrap();
    let mut reference = json("static-minilm/expected.json");
    let want: Vec<Vec<f32>> = serde_json::from_value(reference["embeddings"].take()).unwrap();
    let rows = embed(&model, &texts());
    assert_close(&rows, &want, 1e-6);
    assert_eq!(rows[0], vec![0.0; 128], "an empty text has no tokens");
    assert_eq!(model.card().weight_bytes, 30_522 * 128, "the table stays as it is stored");
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
