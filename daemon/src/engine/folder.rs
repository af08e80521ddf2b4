//! A model folder as Hugging Face and SentenceTransformers write it: which files say what.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::load_error::LoadError;
use super::modules::{HeadLayout, Module};
use super::pooling::Pooling;
use super::tail::StepLayout;

/// What a folder asks for, before any weights are read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// A transformer in `folder`, with what follows it.
    Transformer { folder: PathBuf, head: HeadLayout },
    /// A table of token rows in `folder`.
    Static(StaticLayout),
}

/// Where a static model's parts are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StaticLayout {
    pub(super) folder: PathBuf,
    /// What follows the mean of the tokens' rows.
    pub(super) tail: Vec<StepLayout>,
    /// Tokens of a text that are used.
    pub(super) max_tokens: usize,
}

/// What the settings of a transformer's texts are called: `sentence_…_config.json`. The library takes
/// the first that is there, whatever the model.
const SENTENCE_CONFIGS: [&str; 7] =
    ["bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"];

/// What a static model reads of a text where its files set no limit.
const STATIC_MAX_TOKENS: usize = 1_000_000;

#[derive(Debug, Default, Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

#[derive(Debug, Deserialize)]
struct Model2Vec {
    #[serde(default)]
    normalize: bool,
    seq_length: Option<usize>,
}

impl Layout {
    /// Reads what the folder's modules are.
    pub(super) fn read(folder: &Path) -> Result<Self, LoadError> {
        let file = folder.join("modules.json");
        if let Some(modules) = read_json_if_there::<Vec<Module>>(&file)? {
            return Self::from_modules(folder, &file, &modules);
        }
        let config: serde_json::Value = read_json(&folder.join("config.json"))?;
        if config["model_type"] == "model2vec" {
            return Ok(Self::Static(StaticLayout::from_model2vec(folder.to_owned(), config)?));
        }
        let head = HeadLayout { pooling: Pooling::mean(), pools_prompt: true, tail: Vec::new() };
        Ok(Self::Transformer { folder: folder.to_owned(), head })
    }
}

impl Layout {
    /// That of a folder whose transformer has a head of its own.
    pub(super) fn of_head(folder: &Path) -> Self {
        let head = HeadLayout { pooling: Pooling::mean(), pools_prompt: true, tail: Vec::new() };
        Self::Transformer { folder: folder.to_owned(), head }
    }
}

impl StaticLayout {
    /// A table in a folder, of whose texts everything is read.
    pub(super) fn of_folder(folder: PathBuf, tail: Vec<StepLayout>) -> Self {
        Self { folder, tail, max_tokens: STATIC_MAX_TOKENS }
    }

    /// Takes the settings of a model2vec `config.json`.
    pub(super) fn from_model2vec(
        folder: PathBuf,
        config: serde_json::Value,
    ) -> Result<Self, LoadError> {
        let config: Model2Vec = serde_json::from_value(config)
            .map_err(|source| LoadError::Json { file: folder.join("config.json"), source })?;
        let max_tokens = config.seq_length.unwrap_or(STATIC_MAX_TOKENS);
        let tail = if config.normalize { vec![StepLayout::Normalize] } else { Vec::new() };
        Ok(Self { folder, tail, max_tokens })
    }
}

/// How a transformer's texts are cut and folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TextLimits {
    pub(super) max_tokens: usize,
    pub(super) lower_case: bool,
}

/// Reads the limits on a transformer's texts. `positions` is what its weights can take.
pub(super) fn read_text_limits(folder: &Path, positions: usize) -> Result<TextLimits, LoadError> {
    let mut config = SentenceConfig::default();
    for kind in SENTENCE_CONFIGS {
        let file = folder.join(format!("sentence_{kind}_config.json"));
        if let Some(found) = read_json_if_there(&file)? {
            config = found;
            break;
        }
    }
    let limit = match config.max_seq_length {
        Some(limit) => limit,
        None => read_tokenizer_limit(folder)?.unwrap_or(positions),
    };
    Ok(TextLimits { max_tokens: limit.min(positions), lower_case: config.do_lower_case })
}

/// `model_max_length`, which is 1e30 where nobody knew it.
fn read_tokenizer_limit(folder: &Path) -> Result<Option<usize>, LoadError> {
    #[derive(Deserialize)]
    struct TokenizerConfig {
        model_max_length: Option<serde_json::Number>,
    }
    let config = read_json_if_there::<TokenizerConfig>(&folder.join("tokenizer_config.json"))?;
    let limit = config.and_then(|config| config.model_max_length).and_then(|limit| limit.as_u64());
    Ok(limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)))
}

/// Opens a file that can be read to its end: a named pipe would be waited for, perhaps for ever.
pub(super) fn open_file(file: &Path) -> io::Result<File> {
    if !std::fs::metadata(file)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    File::open(file)
}

/// The bytes of a file.
pub(super) fn read_file(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(file)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a JSON file that must be there.
pub(super) fn read_json<T: DeserializeOwned>(file: &Path) -> Result<T, LoadError> {
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
pub(super) fn read_json_if_there<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, LoadError> {
    let bytes = match read_file(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LoadError::Read { file: file.to_owned(), source }),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| LoadError::Json { file: file.to_owned(), source })
}
