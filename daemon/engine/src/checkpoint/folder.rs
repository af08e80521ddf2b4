//! A model folder as Hugging Face and SentenceTransformers write it: which files say what.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::modules::{HeadLayout, Module};
use crate::heads::pooling::Pooling;
use crate::heads::post_pooling::StepLayout;

/// What a folder asks for, before any weights are read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A transformer in `folder`, with what follows it.
    Transformer { folder: PathBuf, head: HeadLayout },
    /// A table of token rows in `folder`.
    Static(StaticLayout),
}

/// Where a static model's parts are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StaticLayout {
    pub(crate) folder: PathBuf,
    /// What follows the mean of the tokens' rows.
    pub(crate) tail: Vec<StepLayout>,
    /// Tokens of a text that are used.
    pub(crate) max_tokens: usize,
}

/// What a static model reads of a text where its files set no limit.
const STATIC_MAX_TOKENS: usize = 1_000_000;

#[derive(Debug, Deserialize)]
struct Model2Vec {
    #[serde(default)]
    normalize: bool,
    seq_length: Option<usize>,
}

impl Layout {
    /// Reads what the folder's modules are.
    pub(crate) fn read(folder: &Path) -> Result<Self, LoadError> {
        let file = folder.join("modules.json");
        if let Some(modules) = read_json_if_there::<Vec<Module>>(&file)? {
            return Self::from_modules(folder, &file, &modules);
        }
        refuse_adapter(folder)?;
        let config: Value = read_json(&folder.join("config.json"))?;
        if config["model_type"] == "model2vec" {
            return Ok(Self::Static(StaticLayout::from_model2vec(folder.to_owned(), config)?));
        }
        Ok(Self::bare(folder))
    }

    /// That of a transformer without modules.
    pub(crate) fn bare(folder: &Path) -> Self {
        let pooling = Pooling::mean();
        let head = HeadLayout { pooling, pools_prompt: true, tail: Vec::new(), is_assumed: true };
        Self::Transformer { folder: folder.to_owned(), head }
    }
}

impl StaticLayout {
    /// A table in a folder, of whose texts everything is read.
    pub(crate) fn of_folder(folder: PathBuf, tail: Vec<StepLayout>) -> Self {
        Self { folder, tail, max_tokens: STATIC_MAX_TOKENS }
    }

    /// Takes the settings of a model2vec `config.json`.
    pub(crate) fn from_model2vec(folder: PathBuf, config: Value) -> Result<Self, LoadError> {
        let config: Model2Vec = serde_json::from_value(config)
            .map_err(|source| LoadError::Json { file: folder.join("config.json"), source })?;
        let max_tokens = config.seq_length.unwrap_or(STATIC_MAX_TOKENS);
        let tail = if config.normalize { vec![StepLayout::Normalize] } else { Vec::new() };
        Ok(Self { folder, tail, max_tokens })
    }
}

/// Refuses a folder to whose weights transformers would add an adapter: without it they are another
/// model's.
pub(crate) fn refuse_adapter(folder: &Path) -> Result<(), LoadError> {
    let file = folder.join("adapter_config.json");
    if file.exists() { Err(LoadError::Adapter { file }) } else { Ok(()) }
}

/// Opens a file that can be read to its end: a named pipe would be waited for, perhaps for ever.
pub(crate) fn open_file(file: &Path) -> io::Result<File> {
    if !std::fs::metadata(file)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    File::open(file)
}

/// The bytes of a file.
pub(crate) fn read_file(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(file)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a JSON file that must be there.
pub(crate) fn read_json<T: DeserializeOwned>(file: &Path) -> Result<T, LoadError> {
    read_json_if_there(file)?.ok_or_else(|| LoadError::Read {
        file: file.to_owned(),
        source: io::Error::new(io::ErrorKind::NotFound, missing(file)),
    })
}

/// What is not there: the folder of a model, or a file in it.
fn missing(file: &Path) -> &'static str {
    match file.parent().is_some_and(Path::is_dir) {
        true => "there is no such file: the folder holds no whole model",
        false => "there is no such folder",
    }
}

/// Reads a JSON file, if there is one.
pub(crate) fn read_json_if_there<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, LoadError> {
    let bytes = match read_file(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LoadError::Read { file: file.to_owned(), source }),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| LoadError::Json { file: file.to_owned(), source })
}
