//! Decisions about models, and their reasons.

use crate::bounded;
use crate::id::ModelId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One decision with its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The model.
    pub model: ModelId,
    /// What was decided.
    pub verdict: Verdict,
    /// The device, such as `cpu` or `cuda:0`; empty if the decision is about none.
    #[serde(deserialize_with = "bounded::string")]
    pub device: String,
    /// Memory that the model needs there; 0 if unknown.
    pub need_bytes: u64,
    /// Models that are unloaded, or would be, to make room.
    #[serde(deserialize_with = "bounded::list")]
    pub evicts: Vec<ModelId>,
    /// The reasons, for people, with figures.
    #[serde(deserialize_with = "bounded::list")]
    pub reasons: Vec<Reason>,
    /// How long ago it was; 0 for a plan.
    pub age_ms: u64,
}

/// One reason, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason(#[serde(deserialize_with = "bounded::string")] pub String);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is loaded on a device.
    Load,
    /// It waits until there is room.
    Wait,
    /// It cannot be loaded.
    Refuse,
    /// It is unloaded to make room for another model.
    Evict,
    /// It is unloaded: idle for too long, on request, or because its holder is gone.
    Unload,
    /// A load failed.
    Fail,
    /// It is loaded: nothing needs to be done.
    Stay,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Load => "load",
            Self::Wait => "wait",
            Self::Refuse => "refuse",
            Self::Evict => "evict",
            Self::Unload => "unload",
            Self::Fail => "fail",
            Self::Stay => "stay",
        })
    }
}
