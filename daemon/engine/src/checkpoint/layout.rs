//! The parts of a model folder, before any weights are read.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::module_spec::ModuleSpec;
use crate::checkpoint::pooling::Pooling;

/// The parts of an embedding model and their folders.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A transformer in `folder`, and how its token rows become one row.
    Transformer { folder: PathBuf, head: PoolingHeadSpec },
    /// A table of token rows.
    Static(StaticLayout),
}

/// How the rows of tokens become the row of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolingHeadSpec {
    pub(crate) pooling: Pooling,
    /// Whether the tokens of a prompt are pooled like others.
    pub(crate) pools_prompt: bool,
    /// The modules behind pooling, in order.
    pub(crate) modules: Vec<ModuleSpec>,
    /// Whether no file of the folder describes the head.
    pub(crate) is_assumed: bool,
}

/// The parts of a static model.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StaticLayout {
    /// The folder of table and tokenizer.
    pub(crate) folder: PathBuf,
    /// The modules behind the mean of the tokens' rows, in order.
    pub(crate) modules: Vec<ModuleSpec>,
    /// Later tokens of a text are cut off.
    pub(crate) max_tokens: usize,
}

/// The limit of a static model whose files set none.
const STATIC_MAX_TOKENS: usize = 1_000_000;

impl Layout {
    /// A transformer without a description of its head.
    pub(crate) fn bare(folder: &Path) -> Self {
        let pooling = Pooling::mean();
        let head =
            PoolingHeadSpec { pooling, pools_prompt: true, modules: Vec::new(), is_assumed: true };
        Self::Transformer { folder: folder.to_owned(), head }
    }
}

impl StaticLayout {
    /// A table without a limit of tokens in its files.
    pub(crate) fn of_folder(folder: PathBuf, modules: Vec<ModuleSpec>) -> Self {
        Self { folder, modules, max_tokens: STATIC_MAX_TOKENS }
    }

    /// From the `config.json` that model2vec writes.
    pub(crate) fn from_model2vec(folder: PathBuf, config: Value) -> Result<Self, LoadError> {
        let config: Model2Vec = serde_json::from_value(config)
            .map_err(|source| LoadError::Json { file: folder.join("config.json"), source })?;
        let max_tokens = config.seq_length.unwrap_or(STATIC_MAX_TOKENS);
        let modules = if config.normalize { vec![ModuleSpec::Normalize] } else { Vec::new() };
        Ok(Self { folder, modules, max_tokens })
    }
}

#[derive(Debug, Deserialize)]
struct Model2Vec {
    #[serde(default)]
    normalize: bool,
    seq_length: Option<usize>,
}
