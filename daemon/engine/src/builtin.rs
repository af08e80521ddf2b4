//! The embedding model inside the program, which needs neither files nor network.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::api::embedding::EmbeddingModel;
use crate::api::need::Need;
use crate::checkpoint::layout::StaticLayout;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::sentence::SentenceSettings;
use crate::checkpoint::weights::Weights;
use crate::heads::static_embedding::StaticModel;
use crate::tokenizer::TokenizerFile;
use crate::tokenizer::memory_need::TOKENIZER_TIMES_FILE;

/// The memory of [`static_minilm`]: its tokenizer, and its table, which is paged in from the program as it
/// is used.
#[must_use]
pub fn static_minilm_need() -> Need {
    let tokenizer = (TOKENIZER.len() as u64).saturating_mul(TOKENIZER_TIMES_FILE);
    Need { cpu_bytes: tokenizer + WEIGHTS.len() as u64, gpu_bytes: None }
}

/// `builtin:static-minilm`: 30,522 token rows of 128 bytes, distilled from all-MiniLM-L6-v2.
///
/// The rows stay in the program's read-only data; only the tokenizer is allocated.
///
/// # Errors
/// Only by a defect in this program: the files are part of it.
pub fn static_minilm() -> Result<Arc<dyn EmbeddingModel>, LoadError> {
    let folder = PathBuf::from(FOLDER);
    let config = serde_json::from_slice(CONFIG)
        .map_err(|source| LoadError::Json { file: folder.join("config.json"), source })?;
    let layout = StaticLayout::from_model2vec(folder, config)?;
    let weights = Weights::embedded("builtin:static-minilm/model.safetensors", WEIGHTS)?;
    let tokenizer =
        TokenizerFile::parse(Path::new("builtin:static-minilm/tokenizer.json"), TOKENIZER)?;
    Ok(Arc::new(StaticModel::new(&weights, tokenizer, &layout, SentenceSettings::of_nothing())?))
}

/// The folder name for messages; no such folder exists.
const FOLDER: &str = "builtin:static-minilm";

const CONFIG: &[u8] = include_bytes!("builtin/static-minilm/config.json");
const TOKENIZER: &[u8] = include_bytes!("builtin/static-minilm/tokenizer.json");
static WEIGHTS: &[u8] = include_bytes!("builtin/static-minilm/model.safetensors");
