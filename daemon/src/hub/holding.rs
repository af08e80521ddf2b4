//! Whether what the cache has of a commit is a whole model.
//!
//! The cache has no list of what belongs to a commit: Python fetches files one by one as they are
//! asked for. So we look at what the model's own files name.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::cache::ModelCache;
use super::names::stays_inside;

/// What the cache has of a commit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Holding {
    /// All that a loader needs.
    Whole(PathBuf),
    /// All that it cannot do without. The named file may or may not exist on the hub; with it the
    /// model could behave otherwise.
    Doubtful(PathBuf, String),
    /// The named thing is missing.
    Lacks(String),
}

/// Files that a model may do without, but that change its rows where they exist.
///
/// Those of the whole, then those of its first module.
const OPTIONAL: [&[&str]; 2] = [
    &["modules.json", "config_sentence_transformers.json"],
    &["sentence_bert_config.json", "tokenizer_config.json"],
];

const TOKENIZERS: [&str; 6] = [
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
];

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// Looks at what is there for a revision. Sends no request.
pub(super) fn look(cache: &ModelCache, revision: &str) -> Holding {
    let Some(commit) = cache.commit_of(revision) else {
        return Holding::Lacks("that revision".into());
    };
    let folder = cache.snapshot(&commit);
    if !folder.is_dir() {
        return Holding::Lacks("that revision".into());
    }
    let main = match check_modules(&folder) {
        Ok(main) => main,
        Err(missing) => return Holding::Lacks(missing),
    };
    let is_known =
        |file: &String| folder.join(file).exists() || cache.absence(&commit, file).exists();
    if let Some(file) = optional(&main).into_iter().find(|file| !is_known(file)) {
        return Holding::Doubtful(folder, file);
    }
    Holding::Whole(folder)
}

/// The optional files of a model that is there as a whole.
pub(super) fn optional_files(folder: &Path) -> Vec<String> {
    optional(&check_modules(folder).unwrap_or_default())
}

fn optional(main: &str) -> Vec<String> {
    let [of_all, of_main] = OPTIONAL;
    let in_main = |name: &&str| match main {
        "" => (*name).to_owned(),
        folder => format!("{folder}/{name}"),
    };
    of_all.iter().map(|name| (*name).to_owned()).chain(of_main.iter().map(in_main)).collect()
}

/// The folder of the module that turns texts into rows, or what is missing.
fn check_modules(folder: &Path) -> Result<String, String> {
    let file = folder.join("modules.json");
    if !file.exists() {
        check_transformer(folder, "", true)?;
        return Ok(String::new());
    }
    let bytes = std::fs::read(&file).map_err(|_| "a readable modules.json".to_owned())?;
    let modules: Vec<Module> =
        serde_json::from_slice(&bytes).map_err(|_| "a readable modules.json".to_owned())?;
    let mut main = None;
    for Module { path, kind } in modules {
        let path = path.trim_end_matches('/').to_owned();
        if !path.is_empty() && !stays_inside(&path) {
            return Err("modules that stay inside its folder".to_owned());
        }
        let kind = kind.rsplit('.').next().unwrap_or_default();
        if main.is_none() {
            check_transformer(folder, &path, kind != "StaticEmbedding")?;
            main = Some(path);
        } else if kind != "Normalize" {
            need(folder, &path, "config.json")?;
            if kind == "Dense" {
                check_weights(folder, &path)?;
            }
        }
    }
    main.ok_or_else(|| "modules".to_owned())
}

fn check_transformer(folder: &Path, path: &str, has_config: bool) -> Result<(), String> {
    if has_config {
        need(folder, path, "config.json")?;
    }
    if !TOKENIZERS.iter().any(|name| folder.join(path).join(name).exists()) {
        return Err("its tokenizer".to_owned());
    }
    check_weights(folder, path)
}

fn check_weights(folder: &Path, path: &str) -> Result<(), String> {
    let inside = folder.join(path);
    for name in ["model.safetensors", "pytorch_model.bin"] {
        if inside.join(name).exists() {
            return Ok(());
        }
        let Ok(index) = std::fs::read(inside.join(format!("{name}.index.json"))) else { continue };
        let index: serde_json::Value = serde_json::from_slice(&index).unwrap_or_default();
        let Some(map) = index["weight_map"].as_object() else { continue };
        let is_there = |shard: &serde_json::Value| {
            shard.as_str().is_some_and(|shard| stays_inside(shard) && inside.join(shard).exists())
        };
        if !map.is_empty() && map.values().all(is_there) {
            return Ok(());
        }
    }
    Err("its weights".to_owned())
}

fn need(folder: &Path, path: &str, name: &str) -> Result<(), String> {
    let file = Path::new(path).join(name);
    if folder.join(&file).exists() { Ok(()) } else { Err(file.display().to_string()) }
}
