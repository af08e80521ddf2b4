//! Folders with and without each file.

use crate::hub::completeness::{Completeness, of};

const MODULES: &str = r#"[
    {"path": "", "type": "sentence_transformers.models.Transformer"},
    {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]"#;

const INDEX: &str =
    r#"{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}"#;

const MARIAN: &str = r#"{"model_type": "marian"}"#;

#[track_caller]
fn check(files: &[&str], absent: &[&str], expected: Completeness) {
    let root = tempfile::tempdir().unwrap();
    let (here, gone) = (root.path().join("here"), root.path().join("gone"));
    for (folder, files) in [(&here, files), (&gone, absent)] {
        for file in files {
            let text = match *file {
                "modules.json" => MODULES,
                "model.safetensors.index.json" => INDEX,
                "config.json" if files.contains(&"source.spm") => MARIAN,
                _ => "",
            };
            std::fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
            std::fs::write(folder.join(file), text).unwrap();
        }
    }
    assert_eq!(of(&here, &gone), expected, "{files:?} without {absent:?}");
}

const ALL: [&str; 8] = [
    "config.json",
    "tokenizer.json",
    "model.safetensors",
    "modules.json",
    "1_Pooling/config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
];

#[test]
fn all_files_are_a_complete_model() {
    check(&ALL, &[], Completeness::Complete);
}

#[test]
fn a_missing_file_is_always_noticed() {
    for missing in ALL {
        let files: Vec<_> = ALL.into_iter().filter(|file| *file != missing).collect();
        let is_optional = files.contains(&"config.json")
            && files.contains(&"tokenizer.json")
            && files.contains(&"model.safetensors")
            && files.contains(&"1_Pooling/config.json");
        check(
            &files,
            &[],
            if is_optional { Completeness::Sufficient } else { Completeness::Incomplete },
        );
        if is_optional {
            check(&files, &[missing], Completeness::Complete);
        }
    }
}

#[test]
fn every_shard_counts() {
    let files =
        ["config.json", "vocab.txt", "model.safetensors.index.json", "model-1-of-2.safetensors"];
    check(&files, &[], Completeness::Incomplete);
    check(&[&files[..], &["model-2-of-2.safetensors"]].concat(), &[], Completeness::Sufficient);
}

#[test]
fn a_marian_needs_all_of_its_tokenizer() {
    let files = ["config.json", "model.safetensors", "source.spm", "vocab.json"];
    check(&files, &[], Completeness::Incomplete);
    check(&[&files[..], &["target.spm"]].concat(), &[], Completeness::Sufficient);
    check(&[&files[..], &["tokenizer.json"]].concat(), &[], Completeness::Sufficient);
}

#[test]
fn an_empty_folder_is_incomplete() {
    check(&[], &[], Completeness::Incomplete);
}
