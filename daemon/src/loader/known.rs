//! What the program itself can load: which files make a model of which type, and what they take.

use super::{Files, LoadFailure};
use crate::engine::model::{EmbeddingModel, ModelParts};
use crate::engine::{
    builtin_static_minilm, builtin_static_minilm_need, builtin_verbalizer_t5,
    builtin_verbalizer_t5_need, folder_need, holds_model, holds_seq2seq, load_folder_on,
    load_seq2seq, seq2seq_need,
};
use crate::model::{CPU_BATCH_TOKENS, GPU_BATCH_TOKENS};
use crate::scheduler::Need;
use crate::settings::{EMBEDDING_TYPE, TEXT2TEXT_TYPE};
use candle_core::Device;
use std::path::Path;
use std::sync::Arc;

/// A type of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Texts in, rows out; and scores for pairs, where the folder has such a head.
    Embedding,
    /// Texts in, texts out; or candidates for masks.
    Text2Text,
}

impl Known {
    /// The type of this name.
    pub(super) fn of(model_type: &str) -> Result<Self, LoadFailure> {
        match model_type {
            EMBEDDING_TYPE => Ok(Self::Embedding),
            TEXT2TEXT_TYPE => Ok(Self::Text2Text),
            other => Err(LoadFailure::NoSuchType(other.into())),
        }
    }

    /// Whether a folder holds such a model.
    pub(super) fn is_in(self, folder: &Path) -> bool {
        match self {
            Self::Embedding => holds_model(folder),
            Self::Text2Text => holds_seq2seq(folder),
        }
    }

    /// What such a model takes. Reads headers alone.
    pub(super) fn need(self, files: &Files, cpu_workers: usize) -> Result<Need, LoadFailure> {
        Ok(match (self, files) {
            (Self::Embedding, Files::StaticTable) => builtin_static_minilm_need(),
            (Self::Embedding, Files::Folder(folder)) => {
                folder_need(folder, cpu_workers, CPU_BATCH_TOKENS, GPU_BATCH_TOKENS)?
            }
            (Self::Text2Text, Files::Verbalizer) => builtin_verbalizer_t5_need(cpu_workers)?,
            (Self::Text2Text, Files::Folder(folder)) => seq2seq_need(folder, cpu_workers)?,
            (_, files) => return Err(self.without(files)),
        })
    }

    /// Brings such a model into memory, its tensors to `device` where it can compute there.
    pub(super) fn load(self, files: &Files, device: &Device) -> Result<ModelParts, LoadFailure> {
        Ok(match (self, files) {
            (Self::Embedding, Files::StaticTable) => rows(builtin_static_minilm()?),
            (Self::Embedding, Files::Folder(folder)) => rows(load_folder_on(folder, device)?),
            (Self::Text2Text, Files::Verbalizer) => {
                ModelParts { generate: Some(builtin_verbalizer_t5()?), ..ModelParts::default() }
            }
            (Self::Text2Text, Files::Folder(folder)) => {
                ModelParts { generate: Some(load_seq2seq(folder)?), ..ModelParts::default() }
            }
            (_, files) => return Err(self.without(files)),
        })
    }

    /// Files inside the program are of the type that the settings were checked for.
    fn without(self, files: &Files) -> LoadFailure {
        LoadFailure::NoSuchBuiltin(format!("{files:?} as {self:?}"))
    }
}

fn rows(model: Arc<dyn EmbeddingModel>) -> ModelParts {
    ModelParts { embed: Some(model), ..ModelParts::default() }
}
