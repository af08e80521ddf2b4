//! The files of an encoder-decoder, in a folder or inside the program.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::checkpoint::folder::{read_file, read_json, read_json_if_there};
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::weights::Weights;
use crate::load::tokenizer_need;
use crate::seq2seq::bart;
use crate::seq2seq::codec::RawCodec;
use crate::seq2seq::model::Family;
use crate::tokenizer::RawTokenizer;
use crate::tokenizer::marian as marian_tokenizer;
use crate::tokenizer::marian::MarianFiles;
use crate::tokenizer::sentencepiece::T5Files;

/// What files a tokenizer comes in that cannot be read.
const OTHER_TOKENIZERS: [&str; 5] =
    ["spiece.model", "sentencepiece.bpe.model", "source.spm", "vocab.json", "vocab.txt"];

/// The forms that a tokenizer can be read from.
#[derive(Debug)]
pub(crate) enum TokenizerFiles {
    /// The bytes of `tokenizer.json`.
    Json(Vec<u8>),
    T5(Box<T5Files>),
    Marian(Box<MarianFiles>),
}

/// What a model is loaded from. Weights are opened, not read.
#[derive(Debug)]
pub(crate) struct Files {
    /// For messages.
    pub(crate) folder: PathBuf,
    pub(crate) config: Value,
    /// `generation_config.json`, where there is one.
    pub(crate) generation: Option<Value>,
    /// `tokenizer_config.json`; empty where there is none.
    pub(crate) tokenizer_config: Value,
    pub(crate) tokenizer: TokenizerFiles,
    pub(crate) weights: Weights,
}

impl Files {
    pub(crate) fn open(folder: &Path) -> Result<Self, LoadError> {
        let config = read_json(&folder.join("config.json"))?;
        let family = Family::of_config(&folder.join("config.json"), &config)?;
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

    /// Those of the little T5 inside the program.
    pub(crate) fn verbalizer_t5() -> Result<Self, LoadError> {
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

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl TokenizerFiles {
    /// Those of a folder: `tokenizer.json`, and where there is none what it can be made from.
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
            Family::Bart(bart::Kind::Marian) => {
                MarianFiles::of_folder(folder, config)?.map(|files| Self::Marian(Box::new(files)))
            }
            Family::Bart(bart::Kind::Bart) => None,
        };
        if let Some(made) = made {
            return Ok(made);
        }
        // transformers writes no tokenizer.json for a Marian: nothing to advise.
        let is_marian = family == Family::Bart(bart::Kind::Marian);
        let other = OTHER_TOKENIZERS.into_iter().find(|name| folder.join(name).exists());
        match other.filter(|_| !is_marian) {
            Some(found) => Err(LoadError::NoTokenizer { folder: folder.to_owned(), found }),
            None => Err(LoadError::Read { file, source }),
        }
    }

    /// Reads them; `folder` is for messages.
    pub(crate) fn read(&self, folder: &Path) -> Result<RawCodec, LoadError> {
        let raw = match self {
            Self::Json(bytes) => RawTokenizer::parse(&folder.join("tokenizer.json"), bytes)?,
            Self::T5(files) => RawTokenizer::of_t5(files)?,
            Self::Marian(files) => return Ok(RawCodec::Marian(Box::new(files.tokenizer()?))),
        };
        Ok(RawCodec::Library(Box::new(raw)))
    }

    /// What the tokenizer takes in memory.
    pub(crate) fn need(&self) -> u64 {
        match self {
            Self::Json(bytes) => tokenizer_need(bytes),
            Self::T5(files) => files.need(),
            Self::Marian(files) => files.need(),
        }
    }

    /// How many tokens a text may have where no setting says it.
    pub(crate) fn max_tokens(&self) -> Option<usize> {
        match self {
            Self::Json(_) | Self::T5(_) => None,
            Self::Marian(_) => Some(marian_tokenizer::MAX_TOKENS),
        }
    }
}
