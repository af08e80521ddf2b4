//! Whether a folder in the cache holds a complete model.
//!
//! Other programs write to the cache too, file by file and in any order, and may have been stopped
//! half-way. Missing weights are noticed when the model is loaded. A missing small file is not:
//! without `modules.json` the same weights silently give other rows. So an absent file must be known
//! not to exist in the repository. Python leaves an empty file with its name under `.no_exist` when
//! it has looked for it, and so do we.

#[cfg(test)]
mod tests;

use crate::hub::listing::is_inside;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How complete a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Completeness {
    /// Every file is there.
    Complete,
    /// Every required file is there; an optional one may be missing.
    Sufficient,
    /// A required file is missing.
    Incomplete,
}

/// Looks at a snapshot's folder; `absent` is the folder with marks of files that do not exist.
pub(super) fn of(folder: &Path, absent: &Path) -> Completeness {
    let mut optional: BTreeSet<String> = OPTIONAL.map(str::to_owned).into();
    let modules = match folder.join("modules.json").is_file() {
        true => read::<Vec<Module>>(&folder.join("modules.json")),
        false => Some(vec![Module { path: String::new(), kind: "Transformer".into() }]),
    };
    let Some(modules) = modules else { return Completeness::Incomplete };
    for module in &modules {
        if !(module.path.is_empty() || is_inside(&module.path)) {
            return Completeness::Incomplete;
        }
        let own = folder.join(&module.path);
        let has = |file: &str| own.join(file).is_file();
        let is_marian = || {
            let config = read::<Config>(&own.join("config.json"));
            config.is_some_and(|config| config.model_type.as_deref() == Some("marian"))
        };
        let has_tokenizer = || match !has("tokenizer.json") && is_marian() {
            true => MARIAN_TOKENIZER.iter().copied().all(has),
            false => TOKENIZERS.iter().copied().any(has),
        };
        let is_there = match module.kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" => {
                optional.extend(OPTIONAL_OF_TRANSFORMER.map(|file| join(&module.path, file)));
                has("config.json") && has_tokenizer() && has_weights(&own)
            }
            "StaticEmbedding" => has_tokenizer() && has_weights(&own),
            "Dense" => has("config.json") && has_weights(&own),
            "Pooling" => has("config.json"),
            // A module without files, such as Normalize, or one that the loader will refuse by name.
            _ => true,
        };
        if !is_there {
            return Completeness::Incomplete;
        }
    }
    let is_known = |file: &String| folder.join(file).is_file() || absent.join(file).is_file();
    if optional.iter().all(is_known) { Completeness::Complete } else { Completeness::Sufficient }
}

/// The optional files, for modules in these folders.
pub(super) fn optional_files<'a>(folders: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let of_transformer =
        |folder: &'a str| OPTIONAL_OF_TRANSFORMER.map(move |file| join(folder, file));
    folders.flat_map(of_transformer).chain(OPTIONAL.map(str::to_owned)).collect()
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

/// Optional small files that change how a model is used.
const OPTIONAL: [&str; 2] = ["modules.json", "config_sentence_transformers.json"];

/// The same for the folder of a transformer.
const OPTIONAL_OF_TRANSFORMER: [&str; 2] = ["sentence_bert_config.json", "tokenizer_config.json"];

#[derive(Deserialize)]
struct Config {
    model_type: Option<String>,
}

/// Each of them is a tokenizer.
const TOKENIZERS: [&str; 6] = [
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
];

/// The tokenizer of a Marian model without a `tokenizer.json` is all of these.
const MARIAN_TOKENIZER: [&str; 3] = ["source.spm", "target.spm", "vocab.json"];

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
