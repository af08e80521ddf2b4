//! What a client may ask.

use crate::id::{LeaseId, ModelId};
use crate::model::ModelKind;
use serde::{Deserialize, Serialize};

/// A question. Each has one answer, the variant of [`crate::Response`] that names it, or a
/// [`crate::Failure`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Nothing is asked; measures the way there and back. Answer: `Pong`.
    Ping,
    /// A lease on a model, which is loaded first if need be. Answer: `Leased`.
    Acquire {
        /// Which.
        model: ModelId,
        /// What the client takes it for; another kind is a `WRONG_MODEL_TYPE`. `None`: any.
        kind: Option<ModelKind>,
        /// Whether [`crate::Event`]s shall tell how far its load is.
        events: bool,
    },
    /// The lease is no longer needed. Answer: `Released`.
    Release {
        /// One of this connection's.
        lease: LeaseId,
    },
    /// Rows for texts, which ride behind the message as a [`crate::TextBlock`]. Answer:
    /// `Embedded`.
    Embed(EmbedRequest),
    /// The models that this daemon knows. Answer: `AvailableModels`.
    AvailableModels,
    /// How a model is configured. Answer: `ModelConfig`.
    ModelConfig {
        /// Which.
        model: ModelId,
    },
    /// What the daemon holds and does. Answer: `Status`.
    Status,
    /// A model is wanted in memory soon. Answer: `Preloaded`.
    Preload {
        /// Which.
        model: ModelId,
        /// Whether [`crate::Event`]s shall tell how far its load is.
        events: bool,
    },
    /// A model that nobody holds shall leave the memory; running work may end first. Answer:
    /// `Freed`.
    Unload {
        /// Which.
        model: ModelId,
    },
    /// All models that nobody holds or uses shall leave the memory. Answer: `Freed`.
    CleanupUnusedModels,
    /// All rows shall leave the embedding cache, memory and disk. Answer: `CacheCleared`.
    ClearEmbeddingCache,
    /// The settings file shall be read again. Answer: `Reloaded`.
    Reload,
    /// What was decided about a model, the newest first. Answer: `Decisions`.
    Why {
        /// Which.
        model: ModelId,
    },
    /// What a load of a model would do now. Answer: `Decisions`, one of them.
    Plan {
        /// Which.
        model: ModelId,
    },
}

/// Texts to embed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbedRequest {
    /// With what.
    pub target: Target,
    /// How many texts ride behind.
    pub texts: u32,
    /// How the rows shall come.
    pub delivery: Delivery,
}

/// The model of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The model of a lease of this connection.
    Lease(LeaseId),
    /// A model by id: a lease for the length of this request.
    Model(ModelId),
}

/// How rows shall come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivery {
    /// Inline when small, else in shared memory.
    Auto,
    /// Always inline; fails with `LIMIT_EXCEEDED` when a frame cannot hold them.
    Inline,
}
