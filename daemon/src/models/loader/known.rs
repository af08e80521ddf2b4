//! What the program itself can load: which files make a model of which type, and what they take.

use crate::models::loaded::{CPU_BATCH_TOKENS, GPU_BATCH_TOKENS};
use crate::models::loader::{Files, LoadFailure};
use crate::settings::{EMBEDDING_TYPE, RERANK_TYPE, TEXT2TEXT_TYPE};
use candle_core::Device;
use emberd_engine::Need;
use emberd_engine::Seq2SeqModel;
use emberd_engine::{EmbeddingModel, ModelParts, WeightType};
use emberd_engine::{
    builtin_static_minilm, builtin_static_minilm_need, builtin_verbalizer_t5,
    builtin_verbalizer_t5_need, folder_need, holds_masked_head, holds_model, holds_rank_head,
    holds_seq2seq, load_folder_on, load_folder_with_ranker, load_masked, load_ranker_as,
    load_seq2seq, seq2seq_need,
};
use std::path::Path;
use std::sync::Arc;

/// A type of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Texts in, rows out; and scores for pairs, where the folder has such a head.
    Embedding,
    /// Pairs of texts in, scores out.
    Rerank,
    /// Texts in, texts out; or candidates for masks.
    Text2Text,
}

impl Known {
    /// The type of this name.
    pub(super) fn of(model_type: &str) -> Result<Self, LoadFailure> {
        match model_type {
            EMBEDDING_TYPE => Ok(Self::Embedding),
            RERANK_TYPE => Ok(Self::Rerank),
            TEXT2TEXT_TYPE => Ok(Self::Text2Text),
            other => Err(LoadFailure::NoSuchType(other.into())),
        }
    }

    /// Whether a folder holds such a model.
    pub(super) fn is_in(self, folder: &Path) -> bool {
        match self {
            Self::Embedding => holds_model(folder),
            Self::Rerank => holds_rank_head(folder),
            Self::Text2Text => holds_seq2seq(folder) || holds_masked_head(folder),
        }
    }

    /// What such a model takes. Reads headers alone.
    pub(super) fn need(
        self,
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
        Ok(match (self, files) {
            (Self::Embedding, Files::StaticTable) => builtin_static_minilm_need(),
            (Self::Embedding, Files::Folder(folder)) if holds_rank_head(folder) => {
                // Workers for rows and workers for scores, over the same weights.
                head(folder, cpu_workers.saturating_mul(2))?
            }
            (Self::Embedding, Files::Folder(folder)) => encoder(folder, cpu_workers)?,
            (Self::Rerank, Files::Folder(folder)) if holds_rank_head(folder) => {
                head(folder, cpu_workers)?
            }
            (Self::Text2Text, Files::Verbalizer) => builtin_verbalizer_t5_need(cpu_workers)?,
            (Self::Text2Text, Files::Folder(folder)) if holds_seq2seq(folder) => {
                seq2seq_need(folder, cpu_workers)?
            }
            (Self::Text2Text, Files::Folder(folder)) if holds_masked_head(folder) => {
                head(folder, cpu_workers)?
            }
            (_, files) => return Err(self.without(files)),
        })
    }

    /// Brings such a model into memory, its tensors to `device` where it can compute there.
    pub(super) fn load(
        self,
        files: &Files,
        device: &Device,
        held_as: WeightType,
    ) -> Result<ModelParts, LoadFailure> {
        Ok(match (self, files) {
            (Self::Embedding, Files::StaticTable) => rows(builtin_static_minilm()?),
            (Self::Embedding, Files::Folder(folder)) if holds_rank_head(folder) => {
                match load_folder_with_ranker(folder, held_as) {
                    Ok((model, ranker)) => ModelParts { rank: Some(ranker), ..rows(model) },
                    // Rows do not need the head; whoever wants scores says so by the type.
                    Err(fault) => {
                        let parts = rows(load_folder_on(folder, device, held_as)?);
                        let fault = crate::request::failure::chain(&fault);
                        let folder = folder.display();
                        tracing::warn!(%folder, fault, "the head is left out: the model makes rows alone");
                        parts
                    }
                }
            }
            (Self::Embedding, Files::Folder(folder)) => {
                rows(load_folder_on(folder, device, held_as)?)
            }
            (Self::Rerank, Files::Folder(folder)) if holds_rank_head(folder) => {
                ModelParts { rank: Some(load_ranker_as(folder, held_as)?), ..ModelParts::default() }
            }
            (Self::Text2Text, Files::Verbalizer) => texts(builtin_verbalizer_t5()?),
            (Self::Text2Text, Files::Folder(folder)) if holds_seq2seq(folder) => {
                texts(load_seq2seq(folder)?)
            }
            (Self::Text2Text, Files::Folder(folder)) if holds_masked_head(folder) => {
                ModelParts { fill_mask: Some(load_masked(folder)?), ..ModelParts::default() }
            }
            (_, files) => return Err(self.without(files)),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Embedding => EMBEDDING_TYPE,
            Self::Rerank => RERANK_TYPE,
            Self::Text2Text => TEXT2TEXT_TYPE,
        }
    }

    /// The files do not make a model of this type.
    fn without(self, files: &Files) -> LoadFailure {
        let Files::Folder(folder) = files else {
            // Settings are checked for this.
            return LoadFailure::NoSuchBuiltin(format!("{files:?} as {}", self.name()));
        };
        let wanted = match self {
            Self::Embedding => "an encoder",
            Self::Rerank => "a sequence classification (...ForSequenceClassification)",
            Self::Text2Text => {
                "an encoder-decoder (t5, mt5, bart, marian) or a masked language model (...ForMaskedLM)"
            }
        };
        let found = found(folder);
        LoadFailure::OfAnotherType {
            folder: folder.clone(),
            found,
            model_type: self.name(),
            wanted,
        }
    }
}

fn rows(model: Arc<dyn EmbeddingModel>) -> ModelParts {
    ModelParts { embed: Some(model), ..ModelParts::default() }
}

fn texts(model: Arc<dyn Seq2SeqModel>) -> ModelParts {
    ModelParts { generate: Some(model), ..ModelParts::default() }
}

/// What a folder's configuration says that it is, for people.
fn found(folder: &Path) -> String {
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap_or_default();
    let config = serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default();
    match (config["architectures"][0].as_str(), config["model_type"].as_str()) {
        (Some(name), _) => format!("a {name}"),
        (None, Some(kind)) => format!("a model of kind {kind}"),
        (None, None) => "no config.json that names an architecture".into(),
    }
}
