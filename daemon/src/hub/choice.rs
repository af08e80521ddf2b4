//! Which files of a repository are fetched.
//!
//! A repository may hold the same weights five times, for five runtimes. We fetch the safetensors and
//! the files that say how to use them, from the root and from the folders of SentenceTransformers'
//! modules.

#[cfg(test)]
mod tests;

use crate::hub::listing::ListedFile;
use std::collections::{BTreeMap, BTreeSet};

/// Also fetched are `config*.json` and `sentence_*_config.json`.
const SMALL_FILES: [&str; 15] = [
    // Fetched only so that a model with it can be refused.
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

/// The files to fetch, or what the repository lacks.
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

/// A form of weights.
#[derive(Debug, Clone, Copy)]
struct Weights {
    /// The one file, or the index of many.
    main: &'static str,
    /// The beginning and the end of the names of the shards.
    shards: Option<(&'static str, &'static str)>,
}

impl Weights {
    /// The best one first.
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

/// Whether a folder is the root or a module, such as `1_Pooling`: a position in the chain and the name
/// of a class. Not `onnx`, not `checkpoint-500`.
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

/// Whether a name needs no escaping. hf-hub does not escape paths in URLs, so a name with a `?` would
/// request another file. No file that a model needs has such a name.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
