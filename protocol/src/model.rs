//! What clients are told of models.

use crate::bounded;
use crate::id::ModelId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a model is for; decides which requests it answers.
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

/// What can be asked of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Rows for texts.
    Embed,
    /// Scores for pairs of texts.
    Rerank,
    /// Texts from texts.
    Generate,
    /// What may stand at the masks of texts.
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

/// Where a model is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelState {
    /// Known, not in memory.
    Configured,
    /// On its way into memory.
    Loading,
    /// In memory and leased.
    Ready,
    /// In memory without a lease.
    Idle,
    /// Waits for its running work to end, takes no new one.
    Draining,
    /// On its way out of memory.
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

/// A loaded model, as told to those who lease it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Its id.
    pub id: ModelId,
    /// What it is for.
    pub kind: ModelKind,
    /// What can be asked of it.
    #[serde(deserialize_with = "bounded::list")]
    pub methods: Vec<Method>,
    /// What computes it, such as `bert`.
    #[serde(deserialize_with = "bounded::string")]
    pub architecture: String,
    /// Where it computes, such as `cpu`.
    #[serde(deserialize_with = "bounded::string")]
    pub device: String,
    /// Values in a row; 0 where the kind has none. For a ranking: scores of a pair.
    pub dimension: u32,
    /// Tokens of one text that are used.
    pub max_tokens: u32,
    /// Whether rows have length 1.
    pub normalized: bool,
    /// Tokens of an answer at most; 0 where there is none.
    pub max_output_tokens: u32,
    /// The names of its prompts.
    #[serde(deserialize_with = "bounded::strings")]
    pub prompts: Vec<String>,
    /// Which of them goes in front of a text where a request names none.
    #[serde(deserialize_with = "bounded::optional_string")]
    pub default_prompt: Option<String>,
    /// How its rows are to be compared, such as `cosine`, as its folder says.
    #[serde(deserialize_with = "bounded::optional_string")]
    pub similarity: Option<String>,
    /// The names of the scores of a pair.
    #[serde(deserialize_with = "bounded::strings")]
    pub labels: Vec<String>,
    /// Bytes that its weights hold.
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
    /// Where its files come from: a folder, or `builtin:…`.
    #[serde(deserialize_with = "bounded::string")]
    pub source: String,
    /// Where it is in its life.
    pub state: ModelState,
    /// Why the last load failed.
    #[serde(deserialize_with = "bounded::optional_string")]
    pub failure: Option<String>,
}
