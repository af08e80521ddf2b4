//! What the daemon answers.

use crate::admin::{CacheCleared, Freed, Preloaded, Reloaded};
use crate::bounded;
use crate::decision::Decision;
use crate::error::Failure;
use crate::generation::{Generated, MasksFilled};
use crate::id::LeaseId;
use crate::model::{ModelInfo, ModelSummary};
use crate::segment::{ElementType, Place, QuantizationRanges};
use crate::status::Status;
use serde::{Deserialize, Serialize};

/// An answer; each variant names its question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// The request failed.
    Failed(Failure),
    /// To `Ping`.
    Pong,
    /// To `Acquire`.
    Leased(Leased),
    /// To `Release`.
    Released,
    /// To `Embed`.
    Embedded(Embedded),
    /// To `AvailableModels`, ordered by id.
    AvailableModels(#[serde(deserialize_with = "bounded::list")] Vec<ModelSummary>),
    /// To `ModelConfig`: flat keys below `models.<id>.` and their values as TOML, ordered by key.
    ModelConfig(#[serde(deserialize_with = "pairs")] Vec<(String, String)>),
    /// To `Status`.
    Status(Box<Status>),
    /// To `Preload`.
    Preloaded(Preloaded),
    /// To `Unload` and `CleanupUnusedModels`.
    Freed(Freed),
    /// To `ClearEmbeddingCache`.
    CacheCleared(CacheCleared),
    /// To `Reload`.
    Reloaded(Reloaded),
    /// To `Why` and `Plan`.
    Decisions(#[serde(deserialize_with = "bounded::list")] Vec<Decision>),
    /// To `Rerank`.
    Reranked(Reranked),
    /// To `Generate`.
    Generated(Generated),
    /// To `FillMask`.
    MasksFilled(MasksFilled),
}

/// A lease was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leased {
    /// To be named in requests, and released.
    pub lease: LeaseId,
    /// What it gives.
    pub model: ModelInfo,
}

/// Rows, one for each text, in the order of the texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Embedded {
    /// How many rows.
    pub rows: u32,
    /// Values in each; bits, where values are packed.
    pub dimension: u32,
    /// What a value is.
    pub element: ElementType,
    /// Where the rows are.
    pub place: Place,
    /// Tokens that were computed.
    pub tokens: u64,
    /// The texts (by position) that were longer than the model reads and lost their end.
    #[serde(deserialize_with = "bounded::list")]
    pub truncated: Vec<u32>,
    /// For [`ElementType::I8`] and [`ElementType::U8`]: what the numbers stand for.
    pub ranges: Option<QuantizationRanges>,
}

/// Scores, `labels` of them for each pair, pair behind pair: 32-bit floats, little-endian, behind
/// the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reranked {
    /// How many pairs.
    pub pairs: u32,
    /// The names of the labels, as the model's folder gives them; one for a ranking.
    #[serde(deserialize_with = "bounded::strings")]
    pub labels: Vec<String>,
    /// Tokens that were computed.
    pub tokens: u64,
    /// The pairs (by position) that were longer than the model reads and lost their end.
    #[serde(deserialize_with = "bounded::list")]
    pub truncated: Vec<u32>,
}

fn pairs<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(String, String)>, D::Error> {
    #[derive(Deserialize)]
    struct Pair(
        #[serde(deserialize_with = "bounded::string")] String,
        #[serde(deserialize_with = "bounded::string")] String,
    );
    let pairs: Vec<Pair> = bounded::list(deserializer)?;
    Ok(pairs.into_iter().map(|Pair(key, value)| (key, value)).collect())
}
