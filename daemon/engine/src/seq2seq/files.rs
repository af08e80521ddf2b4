//! The files of an encoder-decoder, in a folder or inside the program.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::checkpoint::folder::{read_file, read_json, read_json_if_there};
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::RawConfig;
use crate::checkpoint::weights::Weights;
use crate::seq2seq::codec::RawCodec;
use crate::seq2seq::family::{BartKind, Family};
use crate::tokenizer::TokenizerFile;
use crate::tokenizer::marian as marian_tokenizer;
use crate::tokenizer::marian::MarianFiles;
use crate::tokenizer::memory_need::tokenizer_need;
use crate::tokenizer::sentencepiece::T5Files;

/// The files that a model is loaded from. Of the weights only headers were read.
#[derive(Debug)]
pub(super) struct ModelFiles {
    /// The folder, for messages.
    pub(super) folder: PathBuf,
    pub(super) config: Value,
    /// `generation_config.json`, if there is one.
    pub(super) generation: Option<Value>,
    /// `tokenizer_config.json`; null if there is none.
    pub(super) tokenizer_config: Value,
    pub(super) tokenizer: TokenizerFiles,
    pub(super) weights: Weights,
}

impl ModelFiles {
    /// Opens the files of a folder.
    pub(super) fn open(folder: &Path) -> Result<Self, LoadError> {
        let file = folder.join("config.json");
        let config = read_json(&file)?;
        let family = Family::of_config(RawConfig { file: &file, json: &config })?;
        let tokenizer_config =
            read_json_if_there(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        Ok(Self {
            folder: folder.to_owned(),
            config,
            generation: read_json_if_there(&folder.join("generation_config.json"))?,
            tokenizer: TokenizerFiles::open(folder, family, &tokenizer_config)?,
            tokenizer_config,
            weights: Weights::of_folder(folder)?,
        })
    }

    /// The files of the small T5 inside the program.
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
            tokenizer: TokenizerFiles::Json(file!("tokenizer.json").to_vec()),
            weights: Weights::embedded("builtin:verbalizer-t5/model.safetensors", WEIGHTS)?,
            folder,
        })
    }

    /// The path of a file in the folder, for messages.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// The files of a tokenizer, in one of the supported formats.
#[derive(Debug)]
pub(super) enum TokenizerFiles {
    /// The bytes of `tokenizer.json`.
    Json(Vec<u8>),
    T5(Box<T5Files>),
    Marian(Box<MarianFiles>),
}

impl TokenizerFiles {
    /// Builds the tokenizer; `folder` is for messages.
    pub(super) fn read(&self, folder: &Path) -> Result<RawCodec, LoadError> {
        let raw = match self {
            Self::Json(bytes) => TokenizerFile::parse(&folder.join("tokenizer.json"), bytes)?,
            Self::T5(files) => TokenizerFile::of_t5(files)?,
            Self::Marian(files) => return Ok(RawCodec::Marian(Box::new(files.tokenizer()?))),
        };
        Ok(RawCodec::Library(Box::new(raw)))
    }

    /// Bytes of the tokenizer in memory.
    pub(super) fn need(&self) -> u64 {
        match self {
            Self::Json(bytes) => tokenizer_need(bytes),
            Self::T5(files) => files.need(),
            Self::Marian(files) => files.need(),
        }
    }

    /// The limit for a text if no setting has one, in tokens.
    pub(super) fn max_tokens(&self) -> Option<usize> {
        match self {
            Self::Json(_) | Self::T5(_) => None,
            Self::Marian(_) => Some(marian_tokenizer::MAX_TOKENS),
        }
    }

    /// Reads `tokenizer.json`, or the files that the tokenizer can be built from.
    fn open(folder: &Path, family: Family, config: &Value) -> Result<Self, LoadError> {
        let file = folder.join("tokenizer.json");
        let source = match read_file(&file) {
            Ok(bytes) => return Ok(Self::Json(bytes)),
            Err(source) => source,
        };
        if source.kind() != io::ErrorKind::NotFound {
            return Err(LoadError::Read { file, source });
        }
        let made = match family {
            Family::T5 => T5Files::of_folder(folder)?.map(|files| Self::T5(Box::new(files))),
            Family::Bart(BartKind::Marian) => {
                MarianFiles::of_folder(folder, config)?.map(|files| Self::Marian(Box::new(files)))
            }
            Family::Bart(BartKind::Bart) => None,
        };
        if let Some(made) = made {
            return Ok(made);
        }
        // Converting would not help: transformers writes no tokenizer.json for a Marian.
        let is_marian = family == Family::Bart(BartKind::Marian);
        let other = OTHER_TOKENIZERS.into_iter().find(|name| folder.join(name).exists());
        match other.filter(|_| !is_marian) {
            Some(found) => Err(LoadError::NoTokenizer { folder: folder.to_owned(), found }),
            None => Err(LoadError::Read { file, source }),
        }
    }
}

/// Files with tokenizers in unsupported formats.
const OTHER_TOKENIZERS: [&str; 5] =
    ["spiece.model", "sentencepiece.bpe.model", "source.spm", "vocab.json", "vocab.txt"];
