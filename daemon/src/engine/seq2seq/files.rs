//! The files of an encoder-decoder, in a folder or inside the program.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::engine::folder::{read_file, read_json};
use crate::engine::load_error::LoadError;
use crate::engine::weights::Weights;

/// What files a tokenizer comes in when it has no `tokenizer.json`.
const OTHER_TOKENIZERS: [&str; 5] =
    ["spiece.model", "sentencepiece.bpe.model", "source.spm", "vocab.json", "vocab.txt"];

/// What a model is loaded from. Weights are opened, not read.
#[derive(Debug)]
pub(super) struct Files {
    /// For messages.
    pub(super) folder: PathBuf,
    pub(super) config: Value,
    /// `generation_config.json`, where there is one.
    pub(super) generation: Option<Value>,
    /// `tokenizer_config.json`; empty where there is none.
    pub(super) tokenizer_config: Value,
    /// The bytes of `tokenizer.json`.
    pub(super) tokenizer: Vec<u8>,
    pub(super) weights: Weights,
}

impl Files {
    pub(super) fn open(folder: &Path) -> Result<Self, LoadError> {
        let config = read_json(&folder.join("config.json"))?;
        let there = |name: &str| match read_json(&folder.join(name)) {
            Ok(value) => Ok(Some(value)),
            Err(LoadError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        };
        Ok(Self {
            folder: folder.to_owned(),
            config,
            generation: there("generation_config.json")?,
            tokenizer_config: there("tokenizer_config.json")?.unwrap_or_default(),
            tokenizer: read_tokenizer(folder)?,
            weights: Weights::of_folder(folder)?,
        })
    }

    /// Those of the little T5 inside the program.
    pub(super) fn verbalizer_t5() -> Result<Self, LoadError> {
        macro_rules! file {
            ($name:literal) => {
                include_bytes!(concat!("../builtin/verbalizer-t5/", $name))
            };
        }
        static WEIGHTS: &[u8] = file!("model.safetensors");
        let folder = PathBuf::from("builtin:verbalizer-t5");
        let json = |name: &str, bytes: &[u8]| {
            serde_json::from_slice(bytes)
                .map_err(|source| LoadError::Json { file: folder.join(name), source })
        };
        Ok(Self {
            config: json("config.json", file!("config.json"))?,
            generation: Some(json("generation_config.json", file!("generation_config.json"))?),
            tokenizer_config: json("tokenizer_config.json", file!("tokenizer_config.json"))?,
            tokenizer: file!("tokenizer.json").to_vec(),
            weights: Weights::embedded("builtin:verbalizer-t5/model.safetensors", WEIGHTS)?,
            folder,
        })
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

fn read_tokenizer(folder: &Path) -> Result<Vec<u8>, LoadError> {
    let file = folder.join("tokenizer.json");
    let source = match read_file(&file) {
        Ok(bytes) => return Ok(bytes),
        Err(source) => source,
    };
    let other = OTHER_TOKENIZERS.into_iter().find(|name| folder.join(name).exists());
    match other.filter(|_| source.kind() == io::ErrorKind::NotFound) {
        Some(found) => Err(LoadError::NoTokenizer { folder: folder.to_owned(), found }),
        None => Err(LoadError::Read { file, source }),
    }
}
