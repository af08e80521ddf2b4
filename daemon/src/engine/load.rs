//! From a model folder to a model.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use candle_core::Device;
use candle_transformers::models::bert::{Config, PositionEmbeddingType};

use super::bert::{Bert, Network};
use super::encoder::{RawTokenizer, Style};
use super::fingerprint::ModelFingerprint;
use super::folder::{Layout, StaticLayout, read_json, read_prompt, read_text_limits};
use super::load_error::LoadError;
use super::model::{EmbeddingModel, ModelCard};
use super::pooling::Head;
use super::static_table::StaticModel;
use super::weights::Weights;
use crate::scheduler::Need;

/// Loads an embedding model from a SentenceTransformers, transformers or model2vec folder.
///
/// Blocks while it reads; the tokenizer and the weights are read side by side.
///
/// # Errors
/// See [`LoadError`]; each names the file at fault.
pub fn load_folder(path: &Path) -> Result<Arc<dyn EmbeddingModel>, LoadError> {
    match Layout::read(path)? {
        Layout::Transformer { folder, head } => load_transformer(&folder, head, read_prompt(path)?),
        Layout::Static(layout) => load_static(&layout),
    }
}

/// What one thread keeps for each token of its largest batch, in multiples of the widths: the
/// activations, the query, key and value, the context and the output; and the inner layer, twice.
const WIDTHS_PER_TOKEN: u64 = 7;

/// What a tokenizer takes for each byte of its file: the words, each in two tables.
pub(super) const TOKENIZER_TIMES_FILE: u64 = 25;

/// Whether a folder holds a model's weights and says what they are.
#[must_use]
pub fn holds_model(path: &Path) -> bool {
    let folder = match Layout::read(path) {
        Ok(Layout::Transformer { folder, .. }) => folder,
        Ok(Layout::Static(layout)) => layout.folder,
        Err(_) => return false,
    };
    weight_file(&folder).is_ok()
}

/// What the model of a folder takes in memory with so many workers: its weights as they will lie
/// there, its tokenizer, and what the workers keep for a batch. Reads headers and settings alone.
///
/// # Errors
/// As [`load_folder`], where the folder itself is at fault.
pub fn folder_need(
    path: &Path,
    cpu_workers: usize,
    batch_tokens: usize,
) -> Result<Need, LoadError> {
    let (folder, scratch) = match Layout::read(path)? {
        Layout::Transformer { folder, .. } => {
            let config = read_bert_config(&folder.join("config.json"))?;
            let widths = (WIDTHS_PER_TOKEN * config.hidden_size as u64)
                .saturating_add(2 * config.intermediate_size as u64);
            (folder, widths.saturating_mul(4 * batch_tokens as u64))
        }
        Layout::Static(layout) => (layout.folder, 0),
    };
    let weights = Weights::open(&weight_file(&folder)?)?;
    let tokenizer = std::fs::metadata(folder.join("tokenizer.json")).map_or(0, |file| file.len());
    let cpu_bytes = weights
        .loaded_bytes()
        .saturating_add(tokenizer.saturating_mul(TOKENIZER_TIMES_FILE))
        .saturating_add(scratch.saturating_mul(cpu_workers as u64));
    Ok(Need { cpu_bytes, gpu_bytes: None })
}

fn load_transformer(
    folder: &Path,
    head: Head,
    prompt: String,
) -> Result<Arc<dyn EmbeddingModel>, LoadError> {
    let config = read_bert_config(&folder.join("config.json"))?;
    let limits = read_text_limits(folder, config.max_position_embeddings)?;
    let weights = Weights::open(&weight_file(folder)?)?;
    // The tokenizer is read before the weights are hashed, and both while the tensors are read.
    let (parts, network) = side_by_side(
        || Ok((RawTokenizer::open(&folder.join("tokenizer.json"))?, weights.digest()?)),
        || Network::load(&config, &weights, &Device::Cpu),
    );
    let ((tokenizer, digest), network) = (parts?, network?);
    let fingerprint = ModelFingerprint::new("bert")
        .part("weights", &digest)
        // All of it: heads, activation, and whatever else makes rows from weights.
        .part("config", format!("{config:?}").as_bytes())
        .part("tokenizer", &tokenizer.digest)
        .part("prompt", prompt.as_bytes())
        .part("limits", format!("{limits:?}").as_bytes())
        .part("head", format!("{head:?}").as_bytes())
        .part("computing type", b"f32")
        .finish();
    let style = Style { special_tokens: true, lower_case: limits.lower_case };
    let encoder = tokenizer.fit(config.vocab_size, limits.max_tokens, style, prompt)?;
    let card = ModelCard {
        architecture: "bert".to_owned(),
        dimension: config.hidden_size,
        max_tokens: limits.max_tokens,
        normalized: head.normalize,
        weight_bytes: network.weight_bytes(),
        ..ModelCard::default()
    };
    Ok(Arc::new(Bert { network, encoder, head, card, fingerprint }))
}

fn load_static(layout: &StaticLayout) -> Result<Arc<dyn EmbeddingModel>, LoadError> {
    let folder = &layout.folder;
    let weights = Weights::open(&weight_file(folder)?)?;
    let tokenizer = RawTokenizer::open(&folder.join("tokenizer.json"))?;
    Ok(Arc::new(StaticModel::new(&weights, tokenizer, layout)?))
}

/// Runs both, the first on a thread of its own.
pub(super) fn side_by_side<A: Send, B>(
    a: impl FnOnce() -> A + Send,
    b: impl FnOnce() -> B,
) -> (A, B) {
    thread::scope(|scope| {
        let a = scope.spawn(a);
        let b = b();
        match a.join() {
            Ok(a) => (a, b),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

pub(super) fn weight_file(folder: &Path) -> Result<PathBuf, LoadError> {
    let file = folder.join("model.safetensors");
    if file.exists() {
        return Ok(file);
    }
    let hint = if folder.join("model.safetensors.index.json").exists() {
        "weights in several files are not supported yet"
    } else if folder.join("pytorch_model.bin").exists() {
        "pytorch_model.bin is not read; save the model as safetensors"
    } else {
        "is this the folder of a model?"
    };
    Err(LoadError::NoWeights { folder: folder.to_owned(), hint })
}

fn read_bert_config(file: &Path) -> Result<Config, LoadError> {
    let unsupported = |what, found: &str, supported| {
        Err(LoadError::Unsupported {
            file: file.to_owned(),
            what,
            found: found.to_owned(),
            supported,
        })
    };
    let mut json: serde_json::Value = read_json(file)?;
    match json["model_type"].as_str() {
        Some("bert") => {}
        other => {
            return unsupported("the architecture", other.unwrap_or("(none)"), "bert, model2vec");
        }
    }
    if json["is_decoder"] == true {
        return unsupported("the attention", "of a decoder (is_decoder)", "of an encoder");
    }
    // The library's configuration knows one spelling of each activation.
    let act = match json["hidden_act"].as_str() {
        Some("gelu") => "gelu",
        Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => "geluapproximate",
        Some("relu") => "relu",
        other => {
            let supported = "gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, relu";
            return unsupported("the activation", other.unwrap_or("(none)"), supported);
        }
    };
    json["hidden_act"] = act.into();
    if let Some(other) = json["position_embedding_type"].as_str().filter(|&kind| kind != "absolute")
    {
        return unsupported("the position embedding", other, "absolute");
    }
    let config: Config = serde_json::from_value(json)
        .map_err(|source| LoadError::Json { file: file.to_owned(), source })?;
    debug_assert_eq!(config.position_embedding_type, PositionEmbeddingType::Absolute);
    check_sizes(file, &config)?;
    Ok(config)
}

/// Refuses sizes that would divide by zero, or overflow, further on.
fn check_sizes(file: &Path, config: &Config) -> Result<(), LoadError> {
    const MOST: usize = 1 << 28;
    for (setting, found) in [
        ("vocab_size", config.vocab_size),
        ("hidden_size", config.hidden_size),
        ("num_hidden_layers", config.num_hidden_layers),
        ("num_attention_heads", config.num_attention_heads),
        ("intermediate_size", config.intermediate_size),
        ("max_position_embeddings", config.max_position_embeddings),
        ("type_vocab_size", config.type_vocab_size),
    ] {
        if !(1..=MOST).contains(&found) {
            let wanted = format!("between 1 and {MOST}");
            return Err(LoadError::Setting { file: file.to_owned(), setting, found, wanted });
        }
    }
    if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
        return Err(LoadError::Setting {
            file: file.to_owned(),
            setting: "hidden_size",
            found: config.hidden_size,
            wanted: format!("a multiple of {} heads", config.num_attention_heads),
        });
    }
    Ok(())
}
