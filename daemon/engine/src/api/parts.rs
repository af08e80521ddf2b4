//! A model in memory, with all that it can do.

use std::sync::Arc;

use crate::api::embedding::EmbeddingModel;
use crate::api::generation::Seq2SeqModel;
use crate::api::masks::MaskedModel;
use crate::api::rank::RankHead;

/// A model in memory, by capability. Parts may share weights: [`ModelSpec::weight_bytes`] of a part
/// leaves out weights that an earlier part has counted.
///
/// [`ModelSpec::weight_bytes`]: crate::ModelSpec::weight_bytes
#[derive(Debug, Clone, Default)]
pub struct ModelParts {
    /// Computes rows for texts.
    pub embed: Option<Arc<dyn EmbeddingModel>>,
    /// Scores pairs of texts.
    pub rank: Option<RankHead>,
    /// Generates texts from texts.
    pub generate: Option<Arc<dyn Seq2SeqModel>>,
    /// Finds tokens for masks.
    pub fill_mask: Option<Arc<dyn MaskedModel>>,
}
