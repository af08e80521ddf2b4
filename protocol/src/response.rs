//! The daemon's answers.

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

/// An answer; each variant names its request.
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

/// A lease was acquired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leased {
    /// The lease, to be used in requests and released.
    pub lease: LeaseId,
    /// Its model.
    pub model: ModelInfo,
}

/// Rows, one for each text, in the order of the texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Embedded {
    /// How many rows.
    pub rows: u32,
    /// Values in each row; bits, if values are packed.
    pub dimension: u32,
    /// The type of a value.
    pub element: ElementType,
    /// Where the rows are.
    pub place: Place,
    /// Tokens that were computed.
    pub tokens: u64,
    /// Positions of the texts that were longer than the model's limit and were truncated.
    #[serde(deserialize_with = "bounded::list")]
    pub truncated: Vec<u32>,
    /// For [`ElementType::I8`] and [`ElementType::U8`]: the range of each column.
    pub ranges: Option<QuantizationRanges>,
}

/// Scores follow the message: for each pair one 32-bit float, little-endian, for each label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reranked {
    /// How many pairs.
    pub pairs: u32,
    /// The names of the labels in the model's folder; one for a ranking model.
    #[serde(deserialize_with = "bounded::strings")]
    pub labels: Vec<String>,
    /// Tokens that were computed.
    pub tokens: u64,
    /// Positions of the pairs that were longer than the model's limit and were truncated.
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
