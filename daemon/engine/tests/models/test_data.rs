//! The tiny models of `tests/data`, for this package's tests and the daemon's.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

pub(crate) fn data(path: &str) -> PathBuf {
    Path::new(crate::DATA).join(path)
}

pub(crate) fn json(path: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(data(path)).unwrap()).unwrap()
}

/// The texts of most expected rows.
pub(crate) fn texts() -> Vec<String> {
    let texts = json("texts.json");
    texts.as_array().unwrap().iter().map(|text| text["text"].as_str().unwrap().to_owned()).collect()
}

/// A copy of a model's folder, to be changed.
pub(crate) fn copy_of(name: &str) -> TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &target);
            } else {
                std::fs::write(target, std::fs::read(entry.path()).unwrap()).unwrap();
            }
        }
    }
    let folder = TempDir::new().unwrap();
    copy(&data(name), folder.path());
    folder
}

/// Adds a value to a JSON file, or changes it.
pub(crate) fn add(folder: &TempDir, file: &str, key: &str, value: serde_json::Value) {
    let path = folder.path().join(file);
    let mut json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    json[key] = value;
    std::fs::write(path, json.to_string()).unwrap();
}

/// A whole model with the tokenizer of `sentencepiece/KIND`, without a `tokenizer.json`.
pub(crate) fn sentencepiece_folder(kind: &str) -> TempDir {
    let folder = copy_of(if kind == "t5" { "mt5" } else { "marian" });
    for file in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        std::fs::remove_file(folder.path().join(file)).unwrap();
    }
    for entry in std::fs::read_dir(data("sentencepiece").join(kind)).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}
