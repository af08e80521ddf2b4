//! Which of the files of real repositories are fetched.

use crate::hub::choice::chosen;
use crate::hub::listing::ListedFile;

#[track_caller]
fn check(listed: &[&str], expected: Result<&[&str], &str>) {
    let file = |path: &&str| ListedFile { path: (*path).into(), content: None };
    let files: Vec<_> = listed.iter().map(file).collect();
    let found = chosen(&files);
    let found = found.map(|files| files.iter().map(|file| &*file.path).collect::<Vec<_>>());
    assert_eq!(found.as_deref().map_err(|missing| *missing), expected);
}

#[test]
fn a_sentence_transformers_model_without_other_runtimes_weights() {
    let wanted = [
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ];
    let others = [
        ".gitattributes",
        "README.md",
        "2_Dense/pytorch_model.bin",
        "checkpoint-500/model.safetensors",
        "config.json.bak",
        "config?x.json",
        "data_config.json",
        "model.onnx",
        "onnx/config.json",
        "onnx/model.onnx",
        "openvino/openvino_model.bin",
        "pytorch_model.bin",
        "rust_model.ot",
        "tf_model.h5",
        "flax_model.msgpack",
        "train_script.py",
        "a/1_Pooling/config.json",
    ];
    check(&[&wanted[..], &others[..]].concat(), Ok(&wanted));
}

#[test]
fn shards_come_with_their_index() {
    let wanted = [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.model",
    ];
    let others = ["model-x-of-2.safetensors", "model-fp16.safetensors", "pytorch_model.bin"];
    check(&[&wanted[..], &others[..]].concat(), Ok(&wanted));
}

#[test]
fn pytorch_weights_only_where_there_are_no_safetensors() {
    let both = ["config.json", "model.safetensors", "pytorch_model.bin"];
    check(&both, Ok(&both[..2]));
    let old = ["config.json", "pytorch_model.bin"];
    check(&old, Ok(&old));
}

#[test]
fn a_static_model_has_its_weights_in_a_folder() {
    let wanted =
        ["0_StaticEmbedding/model.safetensors", "0_StaticEmbedding/tokenizer.json", "modules.json"];
    check(&wanted, Ok(&wanted));
}

#[test]
fn a_marian_has_two_models_of_sentencepiece() {
    let wanted = ["config.json", "pytorch_model.bin", "source.spm", "target.spm", "vocab.json"];
    check(&[&wanted[..], &["rust_model.ot", "tf_model.h5"]].concat(), Ok(&wanted));
}

#[test]
fn a_repository_without_a_model_is_reported() {
    check(&[], Err("config.json"));
    check(&["data.parquet", "model.safetensors"], Err("config.json"));
    check(&["config.json", "onnx/model.onnx"], Err("weights"));
}
