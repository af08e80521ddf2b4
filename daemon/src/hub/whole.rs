//! Whether a folder in the cache holds all of a model.
//!
//! Others write the cache too, file by file and in any order, and may have been stopped half-way.
//! Weights that are missing are found sooner or later. A small file that is missing is not: without
//! `modules.json` the same weights give other rows, in silence. So a file that is not there must be
//! known not to exist, by the empty file of its name that Python leaves under `.no_exist` when it
//! has asked for it, and that we leave too.

use crate::hub::listing::is_inside;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How much of a model there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// All of it.
    Whole,
    /// All that every model has; a file that some have may be missing.
    Enough,
    /// Not what it takes to load it.
    Parts,
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The small files that change how a model is used, and that not every model has.
const OPTIONAL: [&str; 2] = ["modules.json", "config_sentence_transformers.json"];

/// The same, in the folder of a transformer.
const OPTIONAL_OF_TRANSFORMER: [&str; 2] = ["sentence_bert_config.json", "tokenizer_config.json"];

#[derive(Deserialize)]
struct Config {
    model_type: Option<String>,
}

/// Each a tokenizer by itself.
const TOKENIZERS: [&str; 6] = [
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
];

/// Of a Marian without a `tokenizer.json`, all together.
const MARIAN_TOKENIZER: [&str; 3] = ["source.spm", "target.spm", "vocab.json"];

/// Looks what is in a snapshot's folder; `absent` is the folder of the files known not to exist.
pub(super) fn held(folder: &Path, absent: &Path) -> Held {
    let mut optional: BTreeSet<String> = OPTIONAL.map(str::to_owned).into();
    let modules = match folder.join("modules.json").is_file() {
        true => read::<Vec<Module>>(&folder.join("modules.json")),
        false => Some(vec![Module { path: String::new(), kind: "Transformer".into() }]),
    };
    let Some(modules) = modules else { return Held::Parts };
    for module in &modules {
        if !(module.path.is_empty() || is_inside(&module.path)) {
            return Held::Parts;
        }
        let place = folder.join(&module.path);
        let has = |file: &str| place.join(file).is_file();
        let is_marian = || {
            let config = read::<Config>(&place.join("config.json"));
            config.is_some_and(|config| config.model_type.as_deref() == Some("marian"))
        };
        let has_tokenizer = || match !has("tokenizer.json") && is_marian() {
            true => MARIAN_TOKENIZER.iter().copied().all(has),
            false => TOKENIZERS.iter().copied().any(has),
        };
        let is_there = match module.kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" => {
                optional.extend(OPTIONAL_OF_TRANSFORMER.map(|file| join(&module.path, file)));
                has("config.json") && has_tokenizer() && has_weights(&place)
            }
            "StaticEmbedding" => has_tokenizer() && has_weights(&place),
            "Dense" => has("config.json") && has_weights(&place),
            "Pooling" => has("config.json"),
            // What has no files, such as Normalize, or what the loader will refuse by name.
            _ => true,
        };
        if !is_there {
            return Held::Parts;
        }
    }
    let is_known = |file: &String| folder.join(file).is_file() || absent.join(file).is_file();
    if optional.iter().all(is_known) { Held::Whole } else { Held::Enough }
}

/// The files that could be missed in silence, whatever the modules are.
pub(super) fn optional_files<'a>(folders: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let of_transformer =
        |folder: &'a str| OPTIONAL_OF_TRANSFORMER.map(move |file| join(folder, file));
    folders.flat_map(of_transformer).chain(OPTIONAL.map(str::to_owned)).collect()
}

fn has_weights(folder: &Path) -> bool {
    let has = |file: &str| folder.join(file).is_file();
    let has_shards = |index: &str| {
        let index = read::<Index>(&folder.join(index));
        index.is_some_and(|index| {
            let mut shards = index.weight_map.values();
            shards.all(|shard| is_inside(shard) && has(shard))
        })
    };
    has("model.safetensors")
        || has_shards("model.safetensors.index.json")
        || has("pytorch_model.bin")
        || has_shards("pytorch_model.bin.index.json")
}

fn join(folder: &str, file: &str) -> String {
    if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") }
}

fn read<T: DeserializeOwned>(file: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULES: &str = r#"[
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]"#;

    const INDEX: &str =
        r#"{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}"#;

    const MARIAN: &str = r#"{"model_type": "marian"}"#;

    #[track_caller]
    fn check(files: &[&str], absent: &[&str], expected: Held) {
        let folder = tempfile::tempdir().unwrap();
        let (here, gone) = (folder.path().join("here"), folder.path().join("gone"));
        for (place, files) in [(&here, files), (&gone, absent)] {
            for file in files {
                let text = match *file {
                    "modules.json" => MODULES,
                    "model.safetensors.index.json" => INDEX,
                    "config.json" if files.contains(&"source.spm") => MARIAN,
                    _ => "",
                };
                std::fs::create_dir_all(place.join(file).parent().unwrap()).unwrap();
                std::fs::write(place.join(file), text).unwrap();
            }
        }
        assert_eq!(held(&here, &gone), expected, "{files:?} without {absent:?}");
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
    fn all_files_are_a_whole_model() {
        check(&ALL, &[], Held::Whole);
    }

    #[test]
    fn no_file_can_be_missing_unseen() {
        for missing in ALL {
            let files: Vec<_> = ALL.into_iter().filter(|file| *file != missing).collect();
            let is_optional = files.contains(&"config.json")
                && files.contains(&"tokenizer.json")
                && files.contains(&"model.safetensors")
                && files.contains(&"1_Pooling/config.json");
            check(&files, &[], if is_optional { Held::Enough } else { Held::Parts });
            if is_optional {
                check(&files, &[missing], Held::Whole);
            }
        }
    }

    #[test]
    fn every_shard_counts() {
        let files = [
            "config.json",
            "vocab.txt",
            "model.safetensors.index.json",
            "model-1-of-2.safetensors",
        ];
        check(&files, &[], Held::Parts);
        check(&[&files[..], &["model-2-of-2.safetensors"]].concat(), &[], Held::Enough);
    }

    #[test]
    fn a_marian_needs_all_of_its_tokenizer() {
        let files = ["config.json", "model.safetensors", "source.spm", "vocab.json"];
        check(&files, &[], Held::Parts);
        check(&[&files[..], &["target.spm"]].concat(), &[], Held::Enough);
        check(&[&files[..], &["tokenizer.json"]].concat(), &[], Held::Enough);
    }

    #[test]
    fn nothing_is_nothing() {
        check(&[], &[], Held::Parts);
    }
}
