//! Which files of a repository make the model that we load.
//!
//! A repository may hold the same weights five times, for five runtimes. We take the safetensors
//! and what says how to use them, in the root and in the folders of SentenceTransformers' modules.

use crate::hub::listing::ListedFile;
use std::collections::{BTreeMap, BTreeSet};

/// Beside these, `config*.json` and `sentence_*_config.json`.
const SMALL_FILES: [&str; 15] = [
    // Of no use, but for a model that has it to be refused.
    "adapter_config.json",
    "modules.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "source.spm",
    "target.spm",
];

/// The files to fetch, or what is missing from every set of them.
pub(super) fn chosen(files: &[ListedFile]) -> Result<Vec<&ListedFile>, &'static str> {
    let mut folders: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for file in files {
        let (folder, name) = split(&file.path);
        folders.entry(folder).or_default().insert(name);
    }
    folders.retain(|folder, _| is_module(folder));
    let root = folders.get("");
    if !root.is_some_and(|names| names.contains("config.json") || names.contains("modules.json")) {
        return Err("config.json");
    }
    let weights: BTreeMap<_, _> =
        folders.iter().map(|(folder, names)| (*folder, Weights::of(names))).collect();
    if weights.values().all(Option::is_none) {
        return Err("weights");
    }
    let is_chosen = |file: &&ListedFile| {
        let (folder, name) = split(&file.path);
        let weights = weights.get(folder);
        weights.is_some_and(|weights| {
            is_small_file(name) || weights.as_ref().is_some_and(|weights| weights.has(name))
        })
    };
    Ok(files.iter().filter(is_chosen).collect())
}

/// The forms that weights come in, best first.
#[derive(Debug, Clone, Copy)]
struct Weights {
    /// The one file, or the index of many.
    main: &'static str,
    /// What the many begin and end with.
    shards: Option<(&'static str, &'static str)>,
}

impl Weights {
    const FORMS: [Self; 4] = [
        Self { main: "model.safetensors", shards: None },
        Self { main: "model.safetensors.index.json", shards: Some(("model-", ".safetensors")) },
        Self { main: "pytorch_model.bin", shards: None },
        Self { main: "pytorch_model.bin.index.json", shards: Some(("pytorch_model-", ".bin")) },
    ];

    fn of(names: &BTreeSet<&str>) -> Option<Self> {
        Self::FORMS.into_iter().find(|form| names.contains(form.main))
    }

    fn has(&self, name: &str) -> bool {
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let is_shard = |(start, end)| {
            let numbers = name.strip_prefix(start)?.strip_suffix(end)?.split_once("-of-")?;
            Some(is_number(numbers.0) && is_number(numbers.1))
        };
        name == self.main || self.shards.and_then(is_shard).unwrap_or(false)
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The root, or a folder such as `1_Pooling`: a place in the chain and the name of a class. Not
/// `onnx`, not `checkpoint-500`.
fn is_module(folder: &str) -> bool {
    let is_class = |(_, class): (&str, &str)| class.starts_with(|first: char| first.is_uppercase());
    folder.is_empty() || (is_plain(folder) && folder.rsplit_once('_').is_some_and(is_class))
}

fn is_small_file(name: &str) -> bool {
    let is_config = name.ends_with(".json")
        && (name.starts_with("config")
            || (name.starts_with("sentence_") && name.ends_with("_config.json")));
    SMALL_FILES.contains(&name) || (is_config && is_plain(name))
}

/// hf-hub puts paths into addresses as they are: one with a `?` in it would ask for another file.
/// No file that a model needs has such a name.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let wanted = [
            "0_StaticEmbedding/model.safetensors",
            "0_StaticEmbedding/tokenizer.json",
            "modules.json",
        ];
        check(&wanted, Ok(&wanted));
    }

    #[test]
    fn a_marian_has_two_models_of_sentencepiece() {
        let wanted = ["config.json", "pytorch_model.bin", "source.spm", "target.spm", "vocab.json"];
        check(&[&wanted[..], &["rust_model.ot", "tf_model.h5"]].concat(), Ok(&wanted));
    }

    #[test]
    fn what_is_no_model_is_told() {
        check(&[], Err("config.json"));
        check(&["data.parquet", "model.safetensors"], Err("config.json"));
        check(&["config.json", "onnx/model.onnx"], Err("weights"));
    }
}
