//! A model folder as Hugging Face and SentenceTransformers write it: which files say what.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::load_error::LoadError;
use super::pooling::{Head, Pooling};

/// What a folder asks for, before any weights are read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// A transformer in `folder`, with what follows it.
    Transformer { folder: PathBuf, head: Head },
    /// A table of token rows in `folder`.
    Static(StaticLayout),
}

/// Where a static model's parts are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StaticLayout {
    pub(super) folder: PathBuf,
    pub(super) normalize: bool,
    /// Tokens of a text that are used.
    pub(super) max_tokens: usize,
    /// Goes in front of every text.
    pub(super) prompt: String,
}

/// What a static model reads of a text where its files set no limit.
const STATIC_MAX_TOKENS: usize = 1_000_000;

#[derive(Debug, Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

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

impl Module {
    /// Where its files are. A path that leads out of the model's folder is refused: what a model
    /// says of itself may have come from anywhere.
    fn folder(&self, model: &Path, file: &Path) -> Result<PathBuf, LoadError> {
        let is_inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if Path::new(&self.path).components().all(is_inside) {
            return Ok(model.join(&self.path));
        }
        Err(LoadError::Unsupported {
            file: file.to_owned(),
            what: "the path of a module",
            found: self.path.clone(),
            supported: "folders inside the model's own",
        })
    }
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
        tracing::warn!(
            folder = %folder.display(),
            "no modules.json: the rows of this model are the mean of its token rows, not normalised"
        );
        let head = Head { pooling: Pooling::Mean, normalize: false };
        Ok(Self::Transformer { folder: folder.to_owned(), head })
    }

    fn from_modules(folder: &Path, file: &Path, modules: &[Module]) -> Result<Self, LoadError> {
        // The class name is what stays the same when the library moves its modules about.
        let kinds: Vec<&str> = modules
            .iter()
            .map(|module| module.kind.rsplit('.').next().unwrap_or_default())
            .collect();
        let folders = modules
            .iter()
            .map(|module| module.folder(folder, file))
            .collect::<Result<Vec<_>, _>>()?;
        match kinds[..] {
            ["Transformer", "Pooling"] | ["Transformer", "Pooling", "Normalize"] => {
                let pooling = read_pooling(&folders[1].join("config.json"))?;
                let head = Head { pooling, normalize: kinds.len() == 3 };
                Ok(Self::Transformer { folder: folders[0].clone(), head })
            }
            ["StaticEmbedding"] | ["StaticEmbedding", "Normalize"] => {
                Ok(Self::Static(StaticLayout {
                    folder: folders[0].clone(),
                    normalize: kinds.len() == 2,
                    max_tokens: STATIC_MAX_TOKENS,
                    prompt: read_prompt(folder)?,
                }))
            }
            _ => Err(LoadError::Unsupported {
                file: file.to_owned(),
                what: "the chain of modules",
                found: kinds.join(", "),
                supported: "Transformer or StaticEmbedding; after a Transformer, Pooling; then perhaps Normalize",
            }),
        }
    }
}

impl StaticLayout {
    /// Takes the settings of a model2vec `config.json`.
    pub(super) fn from_model2vec(
        folder: PathBuf,
        config: serde_json::Value,
    ) -> Result<Self, LoadError> {
        let config: Model2Vec = serde_json::from_value(config)
            .map_err(|source| LoadError::Json { file: folder.join("config.json"), source })?;
        let max_tokens = config.seq_length.unwrap_or(STATIC_MAX_TOKENS);
        // model2vec has no prompts.
        let prompt = String::new();
        Ok(Self { folder, normalize: config.normalize, max_tokens, prompt })
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
    let file = folder.join("sentence_bert_config.json");
    let config = read_json_if_there::<SentenceConfig>(&file)?.unwrap_or_default();
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

fn read_pooling(file: &Path) -> Result<Pooling, LoadError> {
    let config: BTreeMap<String, serde_json::Value> = read_json(file)?;
    if config.get("include_prompt").is_some_and(|include| *include == false) {
        return Err(LoadError::Unsupported {
            file: file.to_owned(),
            what: "include_prompt",
            found: "false".into(),
            supported: "true",
        });
    }
    let modes: Vec<&str> = config
        .iter()
        .filter(|(_, value)| **value == true)
        .filter_map(|(key, _)| key.strip_prefix("pooling_mode_"))
        .collect();
    match modes[..] {
        ["mean_tokens"] => Ok(Pooling::Mean),
        ["cls_token"] => Ok(Pooling::Cls),
        _ => Err(LoadError::Unsupported {
            file: file.to_owned(),
            what: "the pooling",
            found: modes.join(" + "),
            supported: "mean_tokens, cls_token",
        }),
    }
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

/// The text that the model's makers want in front of every text, if any.
pub(super) fn read_prompt(folder: &Path) -> Result<String, LoadError> {
    #[derive(Deserialize)]
    struct Prompts {
        #[serde(default)]
        prompts: BTreeMap<String, String>,
        default_prompt_name: Option<String>,
    }
    let file = folder.join("config_sentence_transformers.json");
    let Some(Prompts { mut prompts, default_prompt_name: Some(name) }) = read_json_if_there(&file)?
    else {
        return Ok(String::new());
    };
    prompts.remove(&name).ok_or_else(|| LoadError::Unsupported {
        file,
        what: "the default prompt",
        found: name,
        supported: "the names in \"prompts\"",
    })
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

fn read_json_if_there<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, LoadError> {
    let bytes = match read_file(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LoadError::Read { file: file.to_owned(), source }),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| LoadError::Json { file: file.to_owned(), source })
}
