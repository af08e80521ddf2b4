//! The requests of a client.

use crate::bounded;
use crate::generation::GenerateRequest;
use crate::id::{LeaseId, ModelId};
use crate::model::ModelKind;
use crate::segment::{ElementType, QuantizationRanges};
use crate::target::Target;
use serde::{Deserialize, Serialize};

/// A request. Its answer is the variant of [`crate::Response`] that is named here, or a
/// [`crate::Failure`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Does nothing; measures the round trip. Answer: `Pong`.
    Ping,
    /// Acquires a lease on a model, which is loaded if necessary. Answer: `Leased`.
    Acquire {
        /// The model.
        model: ModelId,
        /// The kind that the client expects; another kind is a `WRONG_MODEL_TYPE`. `None`: any kind.
        kind: Option<ModelKind>,
        /// Whether [`crate::Event`]s report the progress of its load.
        events: bool,
    },
    /// Releases a lease. Answer: `Released`.
    Release {
        /// A lease of this connection.
        lease: LeaseId,
    },
    /// Computes rows for texts, which follow the message as a [`crate::TextBlock`]. Answer:
    /// `Embedded`.
    Embed(EmbedRequest),
    /// Lists the models of this daemon. Answer: `AvailableModels`.
    AvailableModels,
    /// Reads the settings of a model. Answer: `ModelConfig`.
    ModelConfig {
        /// The model.
        model: ModelId,
    },
    /// Reads the status of the daemon. Answer: `Status`.
    Status,
    /// Loads a model before its use. Answer: `Preloaded`.
    Preload {
        /// The model.
        model: ModelId,
        /// Whether [`crate::Event`]s report the progress of its load.
        events: bool,
    },
    /// Unloads a model without leases, after its running work has ended. Answer: `Freed`.
    Unload {
        /// The model.
        model: ModelId,
    },
    /// Unloads all models without leases and work. Answer: `Freed`.
    CleanupUnusedModels,
    /// Clears the embedding cache, in memory and on disk. Answer: `CacheCleared`.
    ClearEmbeddingCache,
    /// Reads the settings file again. Answer: `Reloaded`.
    Reload,
    /// Reads the decisions about a model, the newest first. Answer: `Decisions`.
    Why {
        /// The model.
        model: ModelId,
    },
    /// Plans what loading a model would do now. Answer: `Decisions`, with one decision.
    Plan {
        /// The model.
        model: ModelId,
    },
    /// Scores pairs of texts, which follow the message as a [`crate::TextBlock`]. Answer:
    /// `Reranked`.
    Rerank(RerankRequest),
    /// Generates texts from texts, which follow the message as a [`crate::TextBlock`]. Answer:
    /// `Generated`.
    Generate(GenerateRequest),
    /// Fills the masks of texts, which follow the message as a [`crate::TextBlock`]. Answer:
    /// `MasksFilled`.
    FillMask(FillMaskRequest),
}

/// Texts to embed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmbedRequest {
    /// The model.
    pub target: Target,
    /// How many texts follow the message.
    pub texts: u32,
    /// Where the rows go.
    pub delivery: Delivery,
    /// How the rows differ from the model's defaults.
    pub options: EmbedOptions,
}

/// How rows differ from the defaults of the model and its settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EmbedOptions {
    /// What goes in front of each text.
    pub prompt: Prompt,
    /// Whether rows are L2-normalised. `None`: as the model does it.
    pub normalize: Option<bool>,
    /// Leading values of each row to return, at most all of the model's. `None`: as configured.
    pub dimension: Option<u32>,
    /// The type of a value.
    pub element: ElementType,
    /// For [`ElementType::I8`] and [`ElementType::U8`]: the range of each column. `None`: the range of
    /// the rows of this request, as sentence-transformers does it.
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
    /// The model.
    pub target: Target,
    /// How many texts follow the message.
    pub texts: u32,
    /// How they form pairs.
    pub pairs: Pairing,
    /// The activation for the output of the head.
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

/// The activation for the output of a classification head.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScoreActivation {
    /// The one that the model's folder names; else a sigmoid for one label, and none for several.
    #[default]
    Model,
    /// No activation.
    Identity,
    /// Each score is between 0 and 1.
    Sigmoid,
    /// The scores of a pair add up to 1.
    Softmax,
}

/// Texts with masks in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FillMaskRequest {
    /// The model.
    pub target: Target,
    /// How many texts follow the message.
    pub texts: u32,
    /// Candidates for each mask; at least 1.
    pub top_k: u32,
}

/// Where rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivery {
    /// Inline if they are small, else in shared memory.
    Auto,
    /// Always inline; fails with `LIMIT_EXCEEDED` if they do not fit a frame.
    Inline,
}
