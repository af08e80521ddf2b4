//! The types of models, and what the program knows about each before a model is loaded.

use emberd_protocol::{Method, ModelKind};
use std::fmt;

/// The type of a model: `models.<id>.type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelType {
    /// Turns texts into rows; scores pairs of texts, if its folder has a head for that.
    Embedding,
    /// Scores pairs of texts.
    Rerank,
    /// Turns texts into texts, or fills masks in them.
    Text2Text,
    /// A type that the program registered. The empty name stands for a type that is not set.
    Custom(String),
}

impl ModelType {
    /// The types that are part of the program.
    pub const BUILT_IN: [Self; 3] = [Self::Embedding, Self::Rerank, Self::Text2Text];

    /// Its name in the settings.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Embedding => "embedding",
            Self::Rerank => "rerank",
            Self::Text2Text => "text2text",
            Self::Custom(name) => name,
        }
    }

    /// The methods that its models may offer; `None` if that is known only after a load.
    #[must_use]
    pub fn methods(&self) -> Option<&'static [Method]> {
        match self {
            Self::Embedding => Some(&[Method::Embed, Method::Rerank]),
            Self::Rerank => Some(&[Method::Rerank]),
            Self::Text2Text => Some(&[Method::Generate, Method::FillMask]),
            Self::Custom(_) => None,
        }
    }

    /// The kind of its models for clients; `None` if that is known only after a load.
    #[must_use]
    pub fn kind(&self) -> Option<ModelKind> {
        match self {
            Self::Embedding => Some(ModelKind::Embedding),
            Self::Rerank => Some(ModelKind::Rerank),
            Self::Text2Text => Some(ModelKind::Text2Text),
            Self::Custom(_) => None,
        }
    }

    /// Whether a key below `models.<id>.` applies to its models.
    #[must_use]
    pub(super) fn has_key(&self, key: &str) -> bool {
        match key {
            "dtype" => *self != Self::Text2Text,
            "dimension" | "cache_embeddings" => !matches!(self, Self::Rerank | Self::Text2Text),
            "max_input_length" | "max_output_length" => {
                !matches!(self, Self::Embedding | Self::Rerank)
            }
            _ => true,
        }
    }

    /// Whether the settings name a type at all.
    #[must_use]
    pub(super) fn is_set(&self) -> bool {
        !self.name().is_empty()
    }
}

impl Default for ModelType {
    fn default() -> Self {
        Self::Custom(String::new())
    }
}

impl From<&str> for ModelType {
    fn from(name: &str) -> Self {
        let built_in = Self::BUILT_IN.into_iter().find(|model_type| model_type.name() == name);
        built_in.unwrap_or_else(|| Self::Custom(name.to_owned()))
    }
}

impl fmt::Display for ModelType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
