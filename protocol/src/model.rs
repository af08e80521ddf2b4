//! Models, as clients see them.

use crate::bounded;
use crate::id::ModelId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a model is used for. It determines which requests the model answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// Texts in, rows of numbers out.
    Embedding,
    /// Text in, text out.
    Text2Text,
    /// Pairs of texts in, scores out.
    Rerank,
}

impl fmt::Display for ModelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedding => "embedding",
            Self::Text2Text => "text2text",
            Self::Rerank => "rerank",
        })
    }
}

/// A method of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Rows for texts.
    Embed,
    /// Scores for pairs of texts.
    Rerank,
    /// Texts from texts.
    Generate,
    /// Candidates for the masks of texts.
    FillMask,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embed => "embed",
            Self::Rerank => "rerank",
            Self::Generate => "generate",
            Self::FillMask => "fill-mask",
        })
    }
}

/// The state of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelState {
    /// Configured, and not in memory.
    Configured,
    /// Being loaded into memory.
    Loading,
    /// In memory and leased.
    Ready,
    /// In memory without a lease.
    Idle,
    /// Finishing its work, and taking no more.
    Draining,
    /// Being unloaded.
    Unloading,
    /// The last load failed; the next request tries again.
    Failed,
}

impl fmt::Display for ModelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configured => "configured",
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Idle => "idle",
            Self::Draining => "draining",
            Self::Unloading => "unloading",
            Self::Failed => "failed",
        })
    }
}

/// A loaded model, as the holder of a lease sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Its id.
    pub id: ModelId,
    /// What it is used for.
    pub kind: ModelKind,
    /// Its methods.
    #[serde(deserialize_with = "bounded::list")]
    pub methods: Vec<Method>,
    /// Its architecture, such as `bert`.
    #[serde(deserialize_with = "bounded::string")]
    pub architecture: String,
    /// The device that it computes on, such as `cpu`.
    #[serde(deserialize_with = "bounded::string")]
    pub device: String,
    /// Values of a row; 0 if the kind has none. For a ranking model: scores of a pair.
    pub dimension: u32,
    /// Tokens of one text; a longer one is truncated.
    pub max_tokens: u32,
    /// Whether rows are L2-normalised.
    pub normalized: bool,
    /// Tokens of an answer at most; 0 if the model generates none.
    pub max_output_tokens: u32,
    /// The names of its prompts.
    #[serde(deserialize_with = "bounded::strings")]
    pub prompts: Vec<String>,
    /// The prompt in front of a text if a request names none.
    #[serde(deserialize_with = "bounded::optional_string")]
    pub default_prompt: Option<String>,
    /// The similarity function for its rows, such as `cosine`, if its folder names one.
    #[serde(deserialize_with = "bounded::optional_string")]
    pub similarity: Option<String>,
    /// The names of the scores of a pair.
    #[serde(deserialize_with = "bounded::strings")]
    pub labels: Vec<String>,
    /// Bytes of its weights.
    pub weight_bytes: u64,
}

/// One line of the list of models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSummary {
    /// Its id.
    pub id: ModelId,
    /// Its type as configured, such as `embedding`.
    #[serde(deserialize_with = "bounded::string")]
    pub model_type: String,
    /// The source of its files: a folder, or `builtin:…`.
    #[serde(deserialize_with = "bounded::string")]
    pub source: String,
    /// Its state.
    pub state: ModelState,
    /// Why the last load failed.
    #[serde(deserialize_with = "bounded::optional_string")]
    pub failure: Option<String>,
}
