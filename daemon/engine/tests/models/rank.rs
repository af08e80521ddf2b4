use std::fs;
use std::sync::Arc;

use emberd_engine::{ComputeError, EmbeddingModel, RankHead, Sequence, WeightType};
use emberd_engine::{
    LoadError, folder_need, holds_masked_head, holds_model, holds_rank_head, load_folder,
    load_folder_with_ranker, load_ranker,
};
use emberd_protocol::ScoreActivation;
use safetensors::tensor::Dtype;
use serde_json::json as value;

use crate::support::{
    OwnedTensor, assert_close, compute, copy_of, data, expected, json, rewrite_weights, set, write,
};

fn pairs(name: &str) -> Vec<(String, String)> {
    serde_json::from_value(json(&format!("expected/{name}.json"))["pairs"].take()).unwrap()
}

fn tokenize_pairs(head: &RankHead, name: &str) -> Vec<Sequence> {
    pairs(name).iter().map(|(a, b)| head.model.tokenize_pair(a, b).unwrap()).collect()
}

#[track_caller]
fn check(name: &str) {
    let head = load_ranker(&data(name)).unwrap();
    let sequences = tokenize_pairs(&head, name);
    let reference = json(&format!("expected/{name}.json"));
    let ids: Vec<Vec<u32>> = serde_json::from_value(reference["input_ids"].clone()).unwrap();
    let types: Vec<Vec<usize>> =
        serde_json::from_value(reference["token_type_ids"].clone()).unwrap();
    for (i, (sequence, (ids, types))) in sequences.iter().zip(ids.iter().zip(types)).enumerate() {
        assert_eq!(&sequence.ids, ids, "pair {i}");
        let own: Vec<usize> =
            (0..ids.len()).map(|at| usize::from(at >= sequence.first_len)).collect();
        assert_eq!(own, types, "pair {i}");
    }
    let rows = compute(&head.model, &sequences.iter().collect::<Vec<_>>());
    assert_close(&rows, &expected(name, "logits"), 1e-5);
    for (sequence, row) in sequences.iter().zip(&rows) {
        assert_close(&compute(&head.model, &[sequence]), std::slice::from_ref(row), 5e-6);
    }
}

#[test]
fn a_cross_encoder_equals_transformers() {
    check("cross-encoder");
    let head = load_ranker(&data("cross-encoder")).unwrap();
    assert_eq!((head.labels, head.activation), (vec!["LABEL_0".into()], ScoreActivation::Sigmoid));
}

#[test]
fn cross_encoders_of_electra_and_albert_equal_transformers() {
    check("electra-cross-encoder");
    check("albert-cross-encoder");
}

#[test]
fn a_classifier_of_three_labels_equals_transformers() {
    check("classifier-3");
    let head = load_ranker(&data("classifier-3")).unwrap();
    assert_eq!((head.labels.len(), head.activation), (3, ScoreActivation::Identity));
    assert_eq!((head.model.spec().dimension, head.model.fingerprint()), (3, None));
}

#[test]
fn the_longer_text_of_a_pair_is_cut() {
    let head = load_ranker(&data("cross-encoder")).unwrap();
    let long = "word ".repeat(200);
    let pair = head.model.tokenize_pair("a b", &long).unwrap();
    assert_eq!((pair.ids.len(), pair.truncated, pair.first_len), (64, true, 4));
    let pair = head.model.tokenize_pair(&long, "a b").unwrap();
    assert_eq!((pair.ids.len(), pair.truncated, pair.first_len), (64, true, 61));
    let pair = head.model.tokenize_pair(&long, &long).unwrap();
    assert_eq!((pair.ids.len(), pair.truncated, pair.first_len), (64, true, 32));
    assert!(!head.model.tokenize_pair("a", "b").unwrap().truncated);
}

#[test]
fn the_folder_names_the_activation_in_the_newer_and_the_older_way() {
    let folder = copy_of("cross-encoder");
    let file = folder.path().join("config.json");
    let plain: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let load_with = |key: &str, what: serde_json::Value| {
        let mut config = plain.clone();
        config[key] = what;
        fs::write(&file, config.to_string()).unwrap();
        load_ranker(folder.path())
    };
    let identity = "torch.nn.modules.linear.Identity";
    let head = load_with("sentence_transformers", value!({ "activation_fn": identity }));
    assert_eq!(head.unwrap().activation, ScoreActivation::Identity);
    let head = load_with("sbert_ce_default_activation_function", value!(identity));
    assert_eq!(head.unwrap().activation, ScoreActivation::Identity);
    let error = load_with("sentence_transformers", value!({ "activation_fn": "torch.nn.Mish" }));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("Mish") && error.contains("Sigmoid"), "{error}");
}

#[test]
fn only_folders_with_the_head_hold_one() {
    for (name, rank, mask) in [
        ("cross-encoder", true, false),
        ("classifier-3", true, false),
        ("bert-mlm", false, true),
        ("modernbert-mlm", false, true),
        ("bert-mean-norm", false, false),
        ("nowhere", false, false),
    ] {
        let folder = data(name);
        assert_eq!((holds_rank_head(&folder), holds_masked_head(&folder)), (rank, mask), "{name}");
    }
    let error = load_ranker(&data("bert-mlm")).unwrap_err();
    assert!(matches!(error, LoadError::Unsupported { .. }), "{error:?}");
    assert!(error.to_string().contains("BertForMaskedLM"), "{error}");
}

/// A folder with a head is also one of an embedding model.
#[test]
fn folders_with_heads_are_embedding_models_too_and_their_need_is_known() {
    for name in ["cross-encoder", "bert-mlm", "roberta-mlm", "distilbert-mlm", "modernbert-mlm"] {
        let model = load_folder(&data(name)).unwrap();
        let need = folder_need(&data(name), 1, 1000, 1000, WeightType::F32).unwrap();
        assert_eq!(model.spec().dimension, 32, "{name}");
        assert!(need.cpu_bytes > model.spec().weight_bytes, "{name}");
    }
}

#[test]
fn rows_and_scores_of_one_folder_share_weights_that_are_counted_once() {
    let alone = (load_folder(&data("cross-encoder")).unwrap(), load_ranker(&data("cross-encoder")));
    let (rows, head) = load_folder_with_ranker(&data("cross-encoder"), WeightType::F32).unwrap();
    let ranker = alone.1.unwrap();
    let sequences = tokenize_pairs(&head, "cross-encoder");
    let batch: Vec<&Sequence> = sequences.iter().collect();
    assert_eq!(compute(&head.model, &batch), compute(&ranker.model, &batch));
    assert_eq!(compute(&rows, &batch), compute(&alone.0, &batch));
    assert_eq!(rows.fingerprint(), alone.0.fingerprint());
    let bytes = |model: &Arc<dyn EmbeddingModel>| model.spec().weight_bytes;
    assert_eq!(bytes(&rows), bytes(&alone.0));
    assert_eq!(bytes(&rows) + bytes(&head.model), bytes(&ranker.model));
    assert_eq!((head.labels, head.activation), (ranker.labels, ranker.activation));
}

/// sentence-transformers writes a cross-encoder like this since version 6.
#[test]
fn a_cross_encoder_with_modules_makes_rows_as_one_without() {
    let folder = copy_of("cross-encoder");
    let module = "sentence_transformers.base.modules.transformer.Transformer";
    let modules = value!([{"idx": 0, "name": "0", "path": "", "type": module}]);
    write(&folder, "modules.json", &modules);
    let (rows, head) = load_folder_with_ranker(folder.path(), WeightType::F32).unwrap();
    let sequences = tokenize_pairs(&head, "cross-encoder");
    let batch: Vec<&Sequence> = sequences.iter().collect();
    let plain = load_folder(&data("cross-encoder")).unwrap();
    assert_eq!(compute(&rows, &batch), compute(&plain, &batch));
    assert!(holds_model(folder.path()));
    // Without the head nothing says how tokens become a row.
    let bare = copy_of("bert-mean-norm");
    write(&bare, "modules.json", &modules);
    assert!(matches!(load_folder(bare.path()), Err(LoadError::Unsupported { .. })));
}

/// The files of one class of sentence-transformers do not count for the other class.
#[test]
fn files_of_a_sentence_transformer_count_for_rows_and_those_of_a_cross_encoder_for_scores() {
    let settings = value!({ "prompts": { "query": "find: " }, "default_prompt_name": "query" });
    let sentence = value!({ "max_seq_length": 12, "do_lower_case": false });
    let transformer = "sentence_transformers.models.Transformer";
    let bare = value!([{ "idx": 0, "name": "0", "path": "", "type": transformer }]);
    let pooled = value!([
        { "idx": 0, "name": "0", "path": "", "type": transformer },
        { "idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling" },
    ]);
    let text = "one two three four five six seven eight nine ten eleven twelve";
    let plain = load_ranker(&data("cross-encoder")).unwrap();
    for (modules, is_for_rows) in [(pooled, true), (bare, false)] {
        let folder = copy_of("cross-encoder");
        fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        let pooling = value!({ "word_embedding_dimension": 32, "pooling_mode_mean_tokens": true });
        write(&folder, "1_Pooling/config.json", &pooling);
        write(&folder, "modules.json", &modules);
        write(&folder, "config_sentence_transformers.json", &settings);
        write(&folder, "sentence_bert_config.json", &sentence);
        let (rows, head) = load_folder_with_ranker(folder.path(), WeightType::F32).unwrap();
        let row = rows.tokenize(text).unwrap();
        let prompted = rows.spec().default_prompt.is_some();
        assert_eq!((row.ids.len() == 12, prompted), (is_for_rows, is_for_rows));
        let pair = head.model.tokenize_pair(text, "b").unwrap();
        let same = pair == plain.model.tokenize_pair(text, "b").unwrap();
        assert_eq!((pair.ids.len() == 12, same), (!is_for_rows, is_for_rows));
        let alone = load_ranker(folder.path()).unwrap();
        assert_eq!(alone.model.tokenize_pair(text, "b").unwrap(), pair);
    }
    let folder = copy_of("cross-encoder");
    let dense = value!([
        { "idx": 0, "name": "0", "path": "", "type": transformer },
        { "idx": 1, "name": "1", "path": "1_Dense", "type": "sentence_transformers.models.Dense" },
    ]);
    write(&folder, "modules.json", &dense);
    write(&folder, "config_sentence_transformers.json", &value!({ "model_type": "CrossEncoder" }));
    let error = load_ranker(folder.path()).unwrap_err().to_string();
    assert!(error.contains("Dense"), "{error}");
}

#[test]
fn a_head_of_another_number_of_labels_is_refused() {
    let folder = copy_of("classifier-3");
    set(&folder, "config.json", "/id2label", value!({ "0": "NO", "1": "YES" }));
    let error = load_ranker(folder.path()).unwrap_err();
    let LoadError::TensorShape { tensor, wanted, .. } = error else { panic!("{error:?}") };
    assert!(tensor.starts_with("classifier.") && wanted[0] == 2);
    set(&folder, "config.json", "/id2label", value!({ "1": "NO", "2": "YES" }));
    assert!(matches!(load_ranker(folder.path()), Err(LoadError::Unsupported { .. })));
}

#[test]
fn a_model_without_a_pair_template_of_a_kind_takes_no_pairs() {
    let model = load_folder(&data("bert-mean-norm")).unwrap();
    assert!(matches!(model.tokenize_pair("a", "b"), Err(ComputeError::NoPairs)));
}

#[test]
fn a_batch_of_nothing_is_no_work_and_a_sequence_of_nothing_is_scored_like_zeros() {
    let head = load_ranker(&data("classifier-3")).unwrap();
    assert!(compute(&head.model, &[]).is_empty());
    let pair = head.model.tokenize_pair("a", "b").unwrap();
    let empty = Sequence::default();
    let rows = compute(&head.model, &[&empty, &pair, &empty]);
    assert_eq!(rows[0], rows[2]);
    assert_close(&rows[1..2], &compute(&head.model, &[&pair]), 5e-6);
    assert_eq!(compute(&head.model, &[&empty])[0], rows[0]);
}

/// Adds tensors of some shapes to a folder whose encoder has them under a prefix.
fn with_head(
    name: &str,
    prefix: &str,
    architecture: &str,
    head: &[(&str, Vec<usize>)],
) -> RankHead {
    let folder = copy_of(name);
    set(&folder, "config.json", "/architectures/0", value!(architecture));
    let file = folder.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    config["id2label"] = value!({ "0": "SCORE" });
    fs::write(&file, config.to_string()).unwrap();
    rewrite_weights(&folder, |mut tensors| {
        tensors.iter_mut().for_each(|tensor| tensor.name = format!("{prefix}{}", tensor.name));
        for (name, shape) in head {
            let count: usize = shape.iter().product();
            let values = (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 100.0);
            tensors.push(OwnedTensor {
                name: (*name).to_owned(),
                dtype: Dtype::F32,
                shape: shape.clone(),
                bytes: values.flat_map(f32::to_le_bytes).collect(),
            });
        }
        tensors
    });
    load_ranker(folder.path()).unwrap()
}

/// A head computed by hand from the row that it reads.
fn by_hand(row: &[f32], activation: fn(f32) -> f32) -> f32 {
    let weight = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 100.0;
    let width = row.len();
    let inner = (0..width).map(|o| {
        let sum: f32 = row.iter().enumerate().map(|(i, x)| x * weight(o * width + i)).sum();
        activation(sum + weight(o))
    });
    inner.enumerate().map(|(i, x)| x * weight(i)).sum::<f32>() + weight(0)
}

/// The row of the first token, by the embedding model of the same folder.
fn first_row(name: &str, sequence: &Sequence) -> Vec<f32> {
    let folder = copy_of(name);
    for (mode, is_used) in [("mean_tokens", false), ("cls_token", true)] {
        let pointer = format!("/pooling_mode_{mode}");
        set(&folder, "1_Pooling/config.json", &pointer, value!(is_used));
    }
    let modules = fs::read(folder.path().join("modules.json")).unwrap();
    let mut modules: Vec<serde_json::Value> = serde_json::from_slice(&modules).unwrap();
    modules.truncate(2);
    fs::write(folder.path().join("modules.json"), serde_json::to_vec(&modules).unwrap()).unwrap();
    let model = load_folder(folder.path()).unwrap();
    compute(&model, &[sequence]).remove(0)
}

#[test]
fn heads_of_roberta_distilbert_and_mpnet_compute_what_their_formulas_say() {
    let relu: fn(f32) -> f32 = |x| x.max(0.0);
    for (name, prefix, architecture, dense, output, activation) in [
        (
            "roberta-mean-norm",
            "roberta.",
            "RobertaForSequenceClassification",
            "classifier.dense",
            "classifier.out_proj",
            f32::tanh as fn(f32) -> f32,
        ),
        (
            "mpnet-mean-norm",
            "mpnet.",
            "MPNetForSequenceClassification",
            "classifier.dense",
            "classifier.out_proj",
            f32::tanh,
        ),
        (
            "distilbert-mean",
            "distilbert.",
            "DistilBertForSequenceClassification",
            "pre_classifier",
            "classifier",
            relu,
        ),
    ] {
        let names = [dense, output].map(|part| [format!("{part}.weight"), format!("{part}.bias")]);
        let head = [
            (names[0][0].as_str(), vec![32, 32]),
            (names[0][1].as_str(), vec![32]),
            (names[1][0].as_str(), vec![1, 32]),
            (names[1][1].as_str(), vec![1]),
        ];
        let head = with_head(name, prefix, architecture, &head);
        let pair = head.model.tokenize_pair("A man plays a guitar.", "It is loud.").unwrap();
        let want = by_hand(&first_row(name, &pair), activation);
        let got = compute(&head.model, &[&pair])[0][0];
        assert!((got - want).abs() < 1e-5, "{name}: {got} is not {want}");
    }
}

/// A model with one segment: all tokens of a pair are in it.
#[test]
fn a_pair_of_roberta_has_two_ends_between() {
    let names = ["classifier.dense.weight", "classifier.dense.bias"];
    let outs = ["classifier.out_proj.weight", "classifier.out_proj.bias"];
    let head = [
        (names[0], vec![32, 32]),
        (names[1], vec![32]),
        (outs[0], vec![1, 32]),
        (outs[1], vec![1]),
    ];
    let head =
        with_head("roberta-mean-norm", "roberta.", "RobertaForSequenceClassification", &head);
    let pair = head.model.tokenize_pair("a", "b").unwrap();
    assert_eq!((pair.ids[0], &pair.ids[2..4], pair.ids.len()), (0, &[2, 2][..], 6));
    assert_eq!(pair.first_len, 6);
    let model = Arc::clone(&head.model);
    assert!(model.tokenize("a").unwrap().ids.len() == 3);
}
