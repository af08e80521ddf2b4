//! Answers to administrative requests.

use crate::bounded;
use crate::id::ModelId;
use serde::{Deserialize, Serialize};

/// A model was loaded before its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preloaded {
    /// Whether it was loaded already.
    pub was_loaded: bool,
    /// How long its last load took.
    pub load_ms: u64,
}

/// Models that were unloaded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freed {
    /// The models.
    #[serde(deserialize_with = "bounded::list")]
    pub models: Vec<ModelId>,
    /// The memory that they took, computed from their weights.
    pub bytes: u64,
}

/// Rows that were removed from the embedding cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheCleared {
    /// How many.
    pub entries: u64,
    /// The memory that they took.
    pub bytes: u64,
}

/// The settings were read again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Changes that take effect now.
    #[serde(deserialize_with = "bounded::list")]
    pub changed: Vec<SettingChange>,
    /// Changes that take effect when the daemon is restarted, or the model is loaded again.
    #[serde(deserialize_with = "bounded::list")]
    pub unchanged: Vec<SettingChange>,
}

/// A setting with a new value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingChange {
    /// The whole key.
    #[serde(deserialize_with = "bounded::string")]
    pub key: String,
    /// Its new value as TOML; empty if it was removed.
    #[serde(deserialize_with = "bounded::string")]
    pub value: String,
    /// When it takes effect, for people.
    #[serde(deserialize_with = "bounded::string")]
    pub effect: String,
}
