//! Answers to those who look after the daemon.

use crate::bounded;
use crate::id::ModelId;
use serde::{Deserialize, Serialize};

/// A model was brought into memory ahead of its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preloaded {
    /// Whether it was there already.
    pub was_loaded: bool,
    /// How long its last load took.
    pub load_ms: u64,
}

/// Models that left the memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freed {
    /// Which.
    #[serde(deserialize_with = "bounded::list")]
    pub models: Vec<ModelId>,
    /// What they took, as computed from their weights.
    pub bytes: u64,
}

/// Rows that left the embedding cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheCleared {
    /// How many.
    pub entries: u64,
    /// What they took.
    pub bytes: u64,
}

/// The settings were read again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// What is in force from now on.
    #[serde(deserialize_with = "bounded::list")]
    pub changed: Vec<SettingChange>,
    /// What is not, until the daemon starts again (or the model is loaded again).
    #[serde(deserialize_with = "bounded::list")]
    pub unchanged: Vec<SettingChange>,
}

/// A key that was given another value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingChange {
    /// The whole key.
    #[serde(deserialize_with = "bounded::string")]
    pub key: String,
    /// Its new value as TOML; empty where it is gone.
    #[serde(deserialize_with = "bounded::string")]
    pub value: String,
    /// When it counts, for people.
    #[serde(deserialize_with = "bounded::string")]
    pub effect: String,
}
