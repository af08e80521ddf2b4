use crate::support::{Daemon, code_of, emberd, run, tiny_model};
use emberd_client::ScoreActivation;
use emberd_protocol::{ErrorCode, Method, ModelKind};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("daemon/engine/tests/data").join(name)
}

/// The reference answers of transformers for a model.
fn expected(model: &str) -> Value {
    let file = data("expected").join(format!("{model}.json"));
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// A daemon with tiny models of each kind.
fn daemon() -> Daemon {
    let model = |id: &str, model_type: &str, folder: &str| {
        let folder = data(folder).display().to_string();
        format!("[models.{id}]\ntype = \"{model_type}\"\nlocal_path = \"{folder}\"\n")
    };
    Daemon::with_settings(&format!(
        "{}{}{}{}{}",
        model("ranker", "rerank", "cross-encoder"),
        model("both", "embedding", "cross-encoder"),
        model("none", "rerank", "bert-mean-norm"),
        model("masks", "text2text", "bert-mlm"),
        model("no-texts", "text2text", "bert-mean-norm"),
    ))
}

/// A folder with an unusable head still makes rows.
#[test]
fn a_head_that_cannot_be_used_does_not_keep_a_model_from_making_rows() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_model(folder.path());
    let file = model.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config["architectures"] = serde_json::json!(["BertForSequenceClassification"]);
    std::fs::write(&file, config.to_string()).unwrap();
    let line = |id: &str, model_type: &str| {
        let folder = model.display();
        format!("models.{id} = {{ type = \"{model_type}\", local_path = \"{folder}\" }}\n")
    };
    let daemon =
        Daemon::with_settings(&[line("rows", "embedding"), line("scores", "rerank")].concat());
    let model = daemon.model("rows");
    assert_eq!(model.info().methods, [Method::Embed]);
    assert_eq!(model.embed_one("a text").unwrap().dimension(), 32);
    // The type `rerank` requires scores; the error names what is missing.
    assert_eq!(code_of(daemon.client().rerank_model("scores")), ErrorCode::ModelLoadError);
}

/// The numbers of a tensor that transformers or sentence-transformers made.
fn numbers(model: &str, tensor: &str) -> Vec<f32> {
    let file = std::fs::read(data("expected").join(format!("{model}.safetensors"))).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let bytes = tensors.tensor(tensor).unwrap().data();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

#[track_caller]
fn close(found: &[f32], wanted: &[f32]) {
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((found - wanted).abs() < 1e-5, "{found}, not {wanted}");
    }
}

fn pairs(expected: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pairs = expected["pairs"].as_array().unwrap();
    pairs.iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}

#[test]
fn pairs_have_the_scores_of_the_reference_and_documents_their_order() {
    let daemon = daemon();
    let pairs = pairs(&expected("cross-encoder"));
    let client = daemon.client();
    let model = client.rerank_model("ranker").unwrap();
    let info = model.info();
    assert_eq!((info.kind, info.methods), (ModelKind::Rerank, vec![Method::Rerank]));
    assert_eq!(info.labels.len(), 1);
    let logits = model.scores(&pairs, ScoreActivation::Identity).unwrap();
    assert_eq!((logits.len(), logits.labels().len()), (pairs.len(), 1));
    close(logits.as_slice(), &numbers("cross-encoder", "logits"));
    // The activation that the folder names.
    let scores = model.scores(&pairs, ScoreActivation::Model).unwrap();
    close(scores.as_slice(), &numbers("cross-encoder", "cross_encoder_predict"));
    let squashed = model.scores(&pairs, ScoreActivation::Sigmoid).unwrap();
    let sigmoid = |logit: &f32| 1.0 / (1.0 + (-logit).exp());
    close(squashed.as_slice(), &logits.as_slice().iter().map(sigmoid).collect::<Vec<_>>());
    // A query with its documents, in one request or by itself.
    let (query, documents): (_, Vec<_>) = (&pairs[0].0, pairs.iter().map(|p| &p.1).collect());
    let ranking = model.rerank(query, &documents).unwrap();
    assert!(ranking.is_sorted_by(|a, b| a.score >= b.score));
    let alone: Vec<_> = documents.iter().map(|document| (query, document)).collect();
    let alone = model.scores(&alone, ScoreActivation::Model).unwrap();
    for place in &ranking {
        assert!((place.score - alone.as_slice()[place.index]).abs() < 1e-5);
    }
    assert_eq!(client.rerank("both", query, &documents).unwrap().len(), documents.len());
    let none: [&str; 0] = [];
    assert!(model.rerank(query, &none).unwrap().is_empty());
}

#[test]
fn an_embedding_model_with_such_a_head_scores_too_and_one_without_is_no_ranker() {
    let daemon = daemon();
    let client = daemon.client();
    let both = client.embedding_model("both").unwrap();
    let info = both.info();
    assert_eq!(
        (info.kind, info.methods),
        (ModelKind::Embedding, vec![Method::Embed, Method::Rerank])
    );
    assert_eq!(both.embed(&["text"]).unwrap().len(), 1);
    assert!(client.rerank_model("both").is_ok());
    for id in ["none", "no-texts"] {
        let error = client.model(id).unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::ModelLoadError));
        let message = error.to_string();
        assert!(message.contains("a BertModel") && message.contains("bert-mean-norm"), "{message}");
    }
    assert_eq!(code_of(client.embedding_model("ranker")), ErrorCode::WrongModelType);
}

#[test]
fn masks_are_filled_as_the_reference_fills_them() {
    let daemon = daemon();
    let expected = expected("bert-mlm");
    let model = daemon.client().text_model("masks").unwrap();
    assert_eq!(model.info().methods, [Method::FillMask]);
    for row in expected["rows"].as_array().unwrap() {
        let filled = model.fill_mask(&[row["text"].as_str().unwrap()], 5).unwrap();
        let masks = &filled.texts[0].masks;
        assert_eq!(masks.len(), row["mask_positions"].as_array().unwrap().len());
        for (mask, wanted) in masks.iter().zip(row["top5"].as_array().unwrap()) {
            for (candidate, wanted) in mask.candidates.iter().zip(wanted.as_array().unwrap()) {
                assert_eq!(Some(u64::from(candidate.id)), wanted["id"].as_u64());
                let score = wanted["prob"].as_f64().unwrap();
                assert!((f64::from(candidate.score) - score).abs() < 1e-5, "{candidate:?}");
            }
        }
    }
    // More than fit into a message.
    let refused = code_of(model.fill_mask(&["[MASK]"], u32::MAX));
    assert_eq!(refused, ErrorCode::LimitExceeded);
    for (text, top_k) in [("no mask", 5), ("[MASK]", 0), ("[MASK]", 5_000)] {
        let refused = code_of(model.fill_mask(&[text], top_k));
        assert_eq!(refused, ErrorCode::InvalidRequest, "{text} {top_k}");
    }
}

#[test]
fn the_command_line_ranks_and_fills() {
    let daemon = daemon();
    let ask = |args: &[&str]| {
        let mut command = emberd(args);
        command.env("EMBERD_SOCKET", daemon.socket());
        let output = run(command, "");
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{message}");
        String::from_utf8(output.stdout).unwrap()
    };
    let rank = ["rerank", "--model", "ranker", "--query", "what glows?"];
    let json = ask(&[&rank[..], &["--json", "--top", "2", "an ember", "a stone", "tax"]].concat());
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let score = |line: &Value| line["scores"][0].as_f64().unwrap();
    assert_eq!(lines.len(), 2);
    assert!(score(&lines[0]) >= score(&lines[1]));
    let table = ask(&[&rank[..], &["an ember", "a stone"]].concat());
    assert!(table.starts_with("SCORE") && table.lines().count() == 3, "{table}");
    let table = ask(&["fill-mask", "--model", "masks", "--top-k", "2", "The [MASK] is warm."]);
    assert_eq!(table.lines().count(), 3, "{table}");
    let json = ask(&["fill-mask", "--model", "masks", "--json", "The [MASK] is warm."]);
    let line: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(line["masks"][0]["candidates"].as_array().unwrap().len(), 5);
}
