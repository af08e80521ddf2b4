//! The settings of one model.

use crate::ground::device::DeviceChoice;
use crate::settings::model_type::ModelType;
use emberd_engine::WeightType;
use std::path::PathBuf;

/// The settings of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSettings {
    /// Its type.
    pub model_type: ModelType,
    /// Its name on the hub, or `builtin:…`.
    pub name: Option<String>,
    /// The revision on the hub: a branch, a tag or a commit.
    pub revision: String,
    /// A folder with its files; used instead of the name if it holds the model.
    pub local_path: Option<PathBuf>,
    /// The devices that it may use.
    pub device: DeviceChoice,
    /// The type of its weights in the CPU's memory (embedding, rerank).
    pub dtype: WeightType,
    /// Whether all its users share one instance; otherwise each lease has its own.
    pub shared: bool,
    /// Values in a row, if fewer than the model makes.
    pub dimension: Option<usize>,
    /// Texts that are computed together at most; for text2text, outputs and beams.
    pub batch_size: usize,
    /// Whether its rows are kept in the embedding cache.
    pub cache_embeddings: bool,
    /// Tokens of an input that are used (text2text).
    pub max_input_length: usize,
    /// Tokens of an output at most (text2text).
    pub max_output_length: usize,
}

/// How new settings change a model, apart from the scheduler's rules for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Not at all: everything known about the model still holds.
    None,
    /// In some way, but its files come from the same source.
    Settings,
    /// Its files come from another source.
    Source,
}

impl ModelSettings {
    /// Whether it is a part of the program.
    #[must_use]
    pub fn is_builtin(&self) -> bool {
        self.local_path.is_none()
            && self.name.as_deref().is_some_and(|name| name.starts_with("builtin:"))
    }

    /// The source of its files, for people; both sources if it has two.
    #[must_use]
    pub fn source(&self) -> String {
        match (&self.local_path, &self.name) {
            (Some(path), Some(name)) => format!("{}, else {name}", path.display()),
            (Some(path), None) => path.display().to_string(),
            (None, Some(name)) => name.clone(),
            (None, None) => String::new(),
        }
    }

    /// How other settings change the model.
    #[must_use]
    pub(crate) fn change_to(&self, new: &Self) -> Change {
        let source = |settings: &Self| {
            (settings.name.clone(), settings.revision.clone(), settings.local_path.clone())
        };
        if self == new {
            Change::None
        } else if source(self) == source(new) {
            Change::Settings
        } else {
            Change::Source
        }
    }
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            model_type: ModelType::default(),
            name: None,
            revision: "main".into(),
            local_path: None,
            device: DeviceChoice::Auto,
            dtype: WeightType::F32,
            shared: true,
            dimension: None,
            batch_size: 32,
            cache_embeddings: true,
            max_input_length: 512,
            max_output_length: 128,
        }
    }
}
