//! The model inside the program: it needs neither file nor network.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::api::embedding::EmbeddingModel;
use crate::checkpoint::layout::StaticLayout;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::sentence::SentenceSettings;
use crate::checkpoint::weights::Weights;
use crate::heads::static_embedding::StaticModel;
use crate::need::Need;
use crate::tokenizer::RawTokenizer;
use crate::tokenizer::memory_need::TOKENIZER_TIMES_FILE;

/// The folder that messages name; there is none.
const FOLDER: &str = "builtin:static-minilm";

const CONFIG: &[u8] = include_bytes!("builtin/static-minilm/config.json");
const TOKENIZER: &[u8] = include_bytes!("builtin/static-minilm/tokenizer.json");
static WEIGHTS: &[u8] = include_bytes!("builtin/static-minilm/model.safetensors");

/// What it takes in memory: the table lies in the program, and is read in as it is used.
#[must_use]
pub fn static_minilm_need() -> Need {
    let tokenizer = (TOKENIZER.len() as u64).saturating_mul(TOKENIZER_TIMES_FILE);
    Need { cpu_bytes: tokenizer + WEIGHTS.len() as u64, gpu_bytes: None }
}

/// `builtin:static-minilm`: 30,522 token rows of 128 bytes, distilled from all-MiniLM-L6-v2.
///
/// The rows are read where they lie in the program; only the tokenizer takes memory.
///
/// # Errors
/// None that is not a mistake in this program: the files are part of it.
pub fn static_minilm() -> Result<Arc<dyn EmbeddingModel>, LoadError> {
    let folder = PathBuf::from(FOLDER);
    let config = serde_json::from_slice(CONFIG)
        .map_err(|source| LoadError::Json { file: folder.join("config.json"), source })?;
    let layout = StaticLayout::from_model2vec(folder, config)?;
    let weights = Weights::embedded("builtin:static-minilm/model.safetensors", WEIGHTS)?;
    let tokenizer =
        RawTokenizer::parse(Path::new("builtin:static-minilm/tokenizer.json"), TOKENIZER)?;
    Ok(Arc::new(StaticModel::new(&weights, tokenizer, &layout, SentenceSettings::of_nothing())?))
}
