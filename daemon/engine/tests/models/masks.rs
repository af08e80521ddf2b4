use std::sync::Arc;

use emberd_engine::Sequence;
use emberd_engine::{MaskScores, MaskedModel};
use emberd_engine::{holds_masked_head, load_masked};
use serde::Deserialize;
use serde_json::json as value;

use crate::support::{OwnedTensor, add, copy_of, data, json, rewrite_weights, set};

#[derive(Deserialize)]
struct Row {
    text: String,
    input_ids: Vec<u32>,
    mask_positions: Vec<u32>,
    top5: Vec<Vec<Candidate>>,
}

#[derive(Deserialize)]
struct Candidate {
    id: u32,
    prob: f32,
}

fn rows(name: &str) -> Vec<Row> {
    serde_json::from_value(json(&format!("expected/{name}.json"))["rows"].take()).unwrap()
}

fn fill(model: &Arc<dyn MaskedModel>, batch: &[&Sequence], top_k: usize) -> Vec<Vec<MaskScores>> {
    Arc::clone(model).mask_context().fill(batch, top_k).unwrap()
}

#[track_caller]
fn check(name: &str) {
    // The limit of the reference for all models.
    let folder = copy_of(name);
    set(&folder, "tokenizer_config.json", "/model_max_length", value!(64));
    let model = load_masked(folder.path()).unwrap();
    let rows = rows(name);
    let sequences: Vec<Sequence> =
        rows.iter().map(|row| model.tokenize(&row.text, usize::MAX).unwrap()).collect();
    let together = fill(&model, &sequences.iter().collect::<Vec<_>>(), 5);
    for ((row, sequence), filled) in rows.iter().zip(&sequences).zip(&together) {
        assert_eq!(sequence.ids, row.input_ids, "{:?}", row.text);
        let positions: Vec<u32> = filled.iter().map(|mask| mask.position).collect();
        assert_eq!(positions, row.mask_positions, "{:?}", row.text);
        let alone = fill(&model, &[sequence], 5).remove(0);
        for ((mask, alone), want) in filled.iter().zip(&alone).zip(&row.top5) {
            assert_eq!(mask.candidates.len(), want.len());
            let all = mask.candidates.iter().zip(&alone.candidates).zip(want);
            for (((id, score), (alone_id, alone_score)), want) in all {
                assert_eq!((*id, *alone_id), (want.id, want.id), "{:?}", row.text);
                assert!((score - want.prob).abs() <= 1e-5, "{score} is not {}", want.prob);
                assert!((score - alone_score).abs() <= 5e-6, "{score} is {alone_score} alone");
            }
        }
    }
}

#[test]
fn bert_fills_masks_like_transformers() {
    check("bert-mlm");
}

#[test]
fn roberta_fills_masks_like_transformers() {
    check("roberta-mlm");
}

#[test]
fn distilbert_fills_masks_like_transformers() {
    check("distilbert-mlm");
}

#[test]
fn electra_fills_masks_like_transformers() {
    check("electra-mlm");
}

#[test]
fn albert_fills_masks_like_transformers() {
    check("albert-mlm");
}

#[test]
fn modernbert_fills_masks_like_transformers() {
    check("modernbert-mlm");
}

#[test]
fn masks_and_tokens_are_spelled_as_the_tokenizer_does() {
    let model = load_masked(&data("bert-mlm")).unwrap();
    assert_eq!((model.mask(), model.spec().architecture.as_str()), ("[MASK]", "bert"));
    assert_eq!(model.token_text(1506), "inn");
    let model = load_masked(&data("roberta-mlm")).unwrap();
    assert_eq!(model.mask(), "<mask>");
    // A token of a byte-level vocabulary includes its space.
    assert_eq!(model.token_text(310), " th");
    assert_eq!(model.token_text(u32::MAX), "");
}

#[test]
fn a_text_without_a_mask_is_left_alone_and_does_not_affect_the_batch() {
    let model = load_masked(&data("bert-mlm")).unwrap();
    let [plain, masked] = ["The soup is warm.", "The [MASK] is warm."]
        .map(|text| model.tokenize(text, usize::MAX).unwrap());
    let empty = Sequence::default();
    assert_eq!(fill(&model, &[&plain, &empty], 5), [vec![], vec![]]);
    let filled = fill(&model, &[&empty, &plain, &masked], 5);
    assert!(filled[0].is_empty() && filled[1].is_empty());
    assert_eq!(filled[2].len(), 1);
    assert!(fill(&model, &[], 5).is_empty());
}

#[test]
fn probabilities_of_all_tokens_add_up_to_one() {
    let model = load_masked(&data("roberta-mlm")).unwrap();
    let masked = model.tokenize("The <mask> is warm.", usize::MAX).unwrap();
    let all = &fill(&model, &[&masked], usize::MAX)[0][0].candidates;
    assert_eq!(all.len(), 1000);
    assert!(all.windows(2).all(|pair| pair[0].1 >= pair[1].1));
    assert!((all.iter().map(|(_, p)| p).sum::<f32>() - 1.0).abs() < 1e-5);
}

/// The folders of the first models are published like this.
#[test]
fn a_mask_that_no_file_names_is_found_among_the_tokens() {
    for (name, mask) in
        [("bert-mlm", "[MASK]"), ("roberta-mlm", "<mask>"), ("distilbert-mlm", "[MASK]")]
    {
        let folder = copy_of(name);
        std::fs::write(folder.path().join("tokenizer_config.json"), "{}").unwrap();
        let _ = std::fs::remove_file(folder.path().join("special_tokens_map.json"));
        assert_eq!(load_masked(folder.path()).unwrap().mask(), mask, "{name}");
    }
    let folder = copy_of("bert-mlm");
    set(&folder, "config.json", "/architectures/0", value!("BertForPreTraining"));
    assert!(holds_masked_head(folder.path()) && load_masked(folder.path()).is_ok());
}

/// Newer versions of transformers write both biases, and use the one of the matrix.
#[test]
fn a_matrix_of_its_own_has_a_bias_of_its_own() {
    let folder = copy_of("bert-mlm");
    add(&folder, "config.json", "tie_word_embeddings", value!(false));
    rewrite_weights(&folder, |mut tensors| {
        let named = |tensors: &[OwnedTensor], end: &str, name: &str| {
            let tensor = tensors.iter().find(|tensor| tensor.name.ends_with(end)).unwrap();
            OwnedTensor { name: name.to_owned(), ..tensor.clone() }
        };
        let table = named(&tensors, "word_embeddings.weight", "cls.predictions.decoder.weight");
        let bias = named(&tensors, "cls.predictions.bias", "cls.predictions.decoder.bias");
        for tensor in tensors.iter_mut().filter(|tensor| tensor.name == "cls.predictions.bias") {
            tensor.bytes = vec![0; tensor.bytes.len()];
        }
        tensors.retain(|tensor| !tensor.name.starts_with("cls.predictions.decoder."));
        tensors.extend([table, bias]);
        tensors
    });
    let [own, tied] = [folder.path().to_owned(), data("bert-mlm")].map(|path| {
        let model = load_masked(&path).unwrap();
        let masked = model.tokenize("The [MASK] is warm today.", usize::MAX).unwrap();
        fill(&model, &[&masked], 5)
    });
    assert_eq!(own, tied);
}

#[test]
fn a_text_has_no_more_tokens_than_are_asked_for() {
    let folder = copy_of("bert-mlm");
    let text = "The [MASK] is warm and the [MASK] is cold.";
    let model = load_masked(folder.path()).unwrap();
    let whole = model.tokenize(text, usize::MAX).unwrap();
    assert!(!whole.truncated);
    let cut = model.tokenize(text, 6).unwrap();
    assert_eq!((cut.ids.len(), cut.truncated), (6, true));
    assert_eq!((&cut.ids[..5], cut.ids[5]), (&whole.ids[..5], *whole.ids.last().unwrap()));
    // The folder may set that the text loses its beginning.
    add(&folder, "tokenizer_config.json", "truncation_side", value!("left"));
    let cut = load_masked(folder.path()).unwrap().tokenize(text, 6).unwrap();
    assert_eq!((cut.ids[0], &cut.ids[1..]), (whole.ids[0], &whole.ids[whole.ids.len() - 5..]));
    add(&folder, "tokenizer_config.json", "truncation_side", value!("middle"));
    let error = load_masked(folder.path()).unwrap_err().to_string();
    assert!(error.contains("middle") && error.contains("tokenizer_config.json"), "{error}");
}

/// More masks than are computed at a time.
#[test]
fn a_text_of_masks_has_them_all_filled() {
    let model = load_masked(&data("bert-mlm")).unwrap();
    let masks = model.tokenize(&"[MASK] ".repeat(40), usize::MAX).unwrap();
    let filled = fill(&model, &[&masks, &masks], 1);
    assert_eq!(filled[0].len(), 40);
    assert_eq!(
        filled[0].iter().map(|mask| mask.position).collect::<Vec<_>>(),
        (1..41).collect::<Vec<_>>()
    );
    for (a, b) in filled[0].iter().zip(&filled[1]) {
        assert!((a.candidates[0].1 - b.candidates[0].1).abs() < 5e-6);
    }
}

#[test]
fn a_matrix_of_its_own_is_used_where_the_weights_are_not_tied() {
    let folder = copy_of("bert-mlm");
    rewrite_weights(&folder, |mut tensors| {
        let table = tensors.iter().find(|t| t.name.ends_with("word_embeddings.weight")).unwrap();
        let mut own = crate::support::OwnedTensor {
            name: "cls.predictions.decoder.weight".to_owned(),
            dtype: table.dtype,
            shape: table.shape.clone(),
            bytes: table.bytes.clone(),
        };
        own.bytes.fill(0);
        tensors.push(own);
        tensors
    });
    let scores = || {
        let model = load_masked(folder.path()).unwrap();
        let masked = model.tokenize("The [MASK] is warm.", usize::MAX).unwrap();
        fill(&model, &[&masked], 1)[0][0].candidates[0]
    };
    // As in transformers, a tied matrix in the file is not used.
    let tied = scores();
    let file = folder.path().join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config["tie_word_embeddings"] = value!(false);
    std::fs::write(&file, config.to_string()).unwrap();
    assert_ne!(scores(), tied);
}

#[test]
fn a_mask_that_the_vocabulary_lacks_is_refused() {
    let folder = copy_of("bert-mlm");
    set(&folder, "tokenizer_config.json", "/mask_token", value!("[GAP]"));
    let error = load_masked(folder.path()).unwrap_err().to_string();
    assert!(error.contains("[GAP]"), "{error}");
}
