//! The model types that the program itself can load: their files and their need.

use crate::ground::error_chain::chain;
use crate::models::load_failure::LoadFailure;
use crate::models::load_target::{CPU_BATCH_TOKENS, GPU_BATCH_TOKENS};
use crate::models::loader::prepared::Files;
use crate::settings::ModelType;
use candle_core::Device;
use emberd_engine::{
    EmbeddingModel, ModelParts, Need, Seq2SeqModel, WeightType, builtin_static_minilm,
    builtin_static_minilm_need, builtin_verbalizer_t5, builtin_verbalizer_t5_need, folder_need,
    holds_masked_head, holds_model, holds_rank_head, holds_seq2seq, load_folder_on,
    load_folder_with_ranker, load_masked, load_ranker_as, load_seq2seq, seq2seq_need,
};
use std::path::Path;
use std::sync::Arc;

/// Whether a folder holds a model of this type.
pub(super) fn is_in(model_type: &ModelType, folder: &Path) -> bool {
    match model_type {
        ModelType::Embedding => holds_model(folder),
        ModelType::Rerank => holds_rank_head(folder),
        ModelType::Text2Text => holds_seq2seq(folder) || holds_masked_head(folder),
        ModelType::Custom(_) => false,
    }
}

/// The memory that a model of this type takes. Of the weights, only headers are read.
pub(super) fn need(
    model_type: &ModelType,
    files: &Files,
    cpu_workers: usize,
    held_as: WeightType,
) -> Result<Need, LoadFailure> {
    let encoder = |folder: &Path, workers| {
        folder_need(folder, workers, CPU_BATCH_TOKENS, GPU_BATCH_TOKENS, held_as)
    };
    // Heads compute on the CPU only.
    let head = |folder: &Path, workers| {
        let need = encoder(folder, workers);
        need.map(|need| Need { cpu_bytes: need.cpu_bytes, gpu_bytes: None })
    };
    Ok(match (model_type, files) {
        (ModelType::Embedding, Files::StaticTable) => builtin_static_minilm_need(),
        (ModelType::Embedding, Files::Folder(folder)) if holds_rank_head(folder) => {
            // Workers for rows and workers for scores share the weights.
            head(folder, cpu_workers.saturating_mul(2))?
        }
        (ModelType::Embedding, Files::Folder(folder)) => encoder(folder, cpu_workers)?,
        (ModelType::Rerank, Files::Folder(folder)) if holds_rank_head(folder) => {
            head(folder, cpu_workers)?
        }
        (ModelType::Text2Text, Files::Verbalizer) => builtin_verbalizer_t5_need(cpu_workers)?,
        (ModelType::Text2Text, Files::Folder(folder)) if holds_seq2seq(folder) => {
            seq2seq_need(folder, cpu_workers)?
        }
        (ModelType::Text2Text, Files::Folder(folder)) if holds_masked_head(folder) => {
            head(folder, cpu_workers)?
        }
        (model_type, files) => return Err(mismatch(model_type, files)),
    })
}

/// Brings a model of this type into memory, its tensors to `device` if it can compute there.
pub(super) fn load(
    model_type: &ModelType,
    files: &Files,
    device: &Device,
    held_as: WeightType,
) -> Result<ModelParts, LoadFailure> {
    Ok(match (model_type, files) {
        (ModelType::Embedding, Files::StaticTable) => rows(builtin_static_minilm()?),
        (ModelType::Embedding, Files::Folder(folder)) if holds_rank_head(folder) => {
            match load_folder_with_ranker(folder, held_as) {
                Ok((model, ranker)) => ModelParts { rank: Some(ranker), ..rows(model) },
                // Rows do not need the head; a model that must score has the type rerank.
                Err(fault) => {
                    let parts = rows(load_folder_on(folder, device, held_as)?);
                    let (folder, fault) = (folder.display(), chain(&fault));
                    tracing::warn!(
                        %folder,
                        fault,
                        "the classification head cannot be used: the model only makes rows"
                    );
                    parts
                }
            }
        }
        (ModelType::Embedding, Files::Folder(folder)) => {
            rows(load_folder_on(folder, device, held_as)?)
        }
        (ModelType::Rerank, Files::Folder(folder)) if holds_rank_head(folder) => {
            ModelParts { rank: Some(load_ranker_as(folder, held_as)?), ..ModelParts::default() }
        }
        (ModelType::Text2Text, Files::Verbalizer) => texts(builtin_verbalizer_t5()?),
        (ModelType::Text2Text, Files::Folder(folder)) if holds_seq2seq(folder) => {
            texts(load_seq2seq(folder)?)
        }
        (ModelType::Text2Text, Files::Folder(folder)) if holds_masked_head(folder) => {
            ModelParts { fill_mask: Some(load_masked(folder)?), ..ModelParts::default() }
        }
        (model_type, files) => return Err(mismatch(model_type, files)),
    })
}

/// The failure of files that do not make a model of this type.
fn mismatch(model_type: &ModelType, files: &Files) -> LoadFailure {
    let wanted = match model_type {
        ModelType::Embedding => "an encoder",
        ModelType::Rerank => "a sequence classifier (...ForSequenceClassification)",
        ModelType::Text2Text => {
            "an encoder-decoder (t5, mt5, bart, marian) or a masked language model (...ForMaskedLM)"
        }
        ModelType::Custom(name) => return LoadFailure::NoSuchType(name.clone()),
    };
    let Files::Folder(folder) = files else {
        // The check of the settings excludes this.
        return LoadFailure::NoSuchBuiltin(format!("{files:?} as {model_type}"));
    };
    LoadFailure::OfAnotherType {
        folder: folder.clone(),
        found: found(folder),
        model_type: model_type.to_string(),
        wanted,
    }
}

fn rows(model: Arc<dyn EmbeddingModel>) -> ModelParts {
    ModelParts { embed: Some(model), ..ModelParts::default() }
}

fn texts(model: Arc<dyn Seq2SeqModel>) -> ModelParts {
    ModelParts { generate: Some(model), ..ModelParts::default() }
}

/// The model that a folder's configuration describes, for people.
fn found(folder: &Path) -> String {
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap_or_default();
    let config = serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default();
    match (config["architectures"][0].as_str(), config["model_type"].as_str()) {
        (Some(name), _) => format!("a {name}"),
        (None, Some(kind)) => format!("a model of kind {kind}"),
        (None, None) => "no config.json that names an architecture".into(),
    }
}
