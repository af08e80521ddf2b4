//! Models that score pairs of texts.

use std::sync::Arc;

use crate::api::embedding::EmbeddingModel;

/// A head that scores pairs of texts: a cross-encoder or another sequence classification.
#[derive(Debug, Clone)]
pub struct RankHead {
    /// Tokenizes pairs ([`EmbeddingModel::tokenize_pair`]). Its rows are the logits of the head, one
    /// value for each label, without an activation. They are neither normalised nor cached.
    pub model: Arc<dyn EmbeddingModel>,
    /// The names of the labels, from `id2label`.
    pub labels: Vec<String>,
    /// The activation that the folder sets for the logits; never
    /// [`ScoreActivation::Model`](emberd_protocol::ScoreActivation).
    pub activation: emberd_protocol::ScoreActivation,
}
