//! What a client may ask.

use crate::bounded;
use crate::generation::GenerateRequest;
use crate::id::{LeaseId, ModelId};
use crate::model::ModelKind;
use crate::segment::{ElementType, QuantizationRanges};
use serde::{Deserialize, Serialize};

/// A question. Each has one answer, the variant of [`crate::Response`] that names it, or a
/// [`crate::Failure`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Scores for pairs of texts, which ride behind the message as a [`crate::TextBlock`]. Answer:
    /// `Reranked`.
    Rerank(RerankRequest),
    /// Texts made from texts, which ride behind the message as a [`crate::TextBlock`]. Answer:
    /// `Generated`.
    Generate(GenerateRequest),
    /// What may stand at the masks of texts, which ride behind the message as a
    /// [`crate::TextBlock`]. Answer: `MasksFilled`.
    FillMask(FillMaskRequest),
}

/// Texts to embed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmbedRequest {
    /// With what.
    pub target: Target,
    /// How many texts ride behind.
    pub texts: u32,
    /// How the rows shall come.
    pub delivery: Delivery,
    /// What the rows shall be.
    pub options: EmbedOptions,
}

/// What rows shall be, where not as the model and its settings have it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EmbedOptions {
    /// What goes in front of each text.
    pub prompt: Prompt,
    /// Whether rows get the length 1. `None`: as the model does it.
    pub normalize: Option<bool>,
    /// The first so many values of each row; at most as many as the model makes. `None`: as the
    /// settings say.
    pub dimension: Option<u32>,
    /// What a value shall be.
    pub element: ElementType,
    /// For [`ElementType::I8`] and [`ElementType::U8`]: what the smallest and the largest number
    /// stand for. `None`: taken from the rows of this request, as sentence-transformers does it.
    pub ranges: Option<QuantizationRanges>,
}

/// What goes in front of each text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Prompt {
    /// The model's default prompt, if it has one.
    #[default]
    Default,
    /// The model's prompt of this name.
    Named(#[serde(deserialize_with = "bounded::string")] String),
    /// This text; empty for nothing.
    Text(#[serde(deserialize_with = "bounded::string")] String),
}

/// Pairs of texts to score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RerankRequest {
    /// With what.
    pub target: Target,
    /// How many texts ride behind.
    pub texts: u32,
    /// How they form pairs.
    pub pairs: Pairing,
    /// What is done to what the head puts out.
    pub activation: ScoreActivation,
}

/// How the texts of a request form pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pairing {
    /// The first text with each of the others.
    QueryFirst,
    /// The first with the second, the third with the fourth, and so on.
    Adjacent,
}

/// What becomes of the values that a classification head puts out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScoreActivation {
    /// What the model's folder names; else a sigmoid for one label, and nothing for several.
    #[default]
    Model,
    /// Nothing.
    Identity,
    /// Each between 0 and 1.
    Sigmoid,
    /// Those of a pair add up to 1.
    Softmax,
}

/// Texts with masks in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FillMaskRequest {
    /// With what.
    pub target: Target,
    /// How many texts ride behind.
    pub texts: u32,
    /// Candidates for each mask; at least 1.
    pub top_k: u32,
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
