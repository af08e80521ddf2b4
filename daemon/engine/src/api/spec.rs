//! The description of a loaded model.

use std::collections::BTreeMap;

/// The description of a loaded model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelSpec {
    /// The architecture, such as `bert` or `static`.
    pub architecture: String,
    /// Values of a row; 0 for models that compute no rows.
    pub dimension: usize,
    /// The most tokens of a text, special tokens included. Longer texts are truncated.
    pub max_tokens: usize,
    /// Whether rows have unit length (are L2-normalised).
    pub normalized: bool,
    /// Prompts by name, for [`EmbeddingModel::tokenize_with_prompt`](crate::EmbeddingModel).
    pub prompts: BTreeMap<String, String>,
    /// The name of the prompt that [`EmbeddingModel::tokenize`](crate::EmbeddingModel) puts in front of
    /// a text.
    pub default_prompt: Option<String>,
    /// How rows are compared, such as `cosine`, if the folder says it.
    pub similarity: Option<String>,
    /// The default number of leading values of a row that are kept (Matryoshka), if the folder sets
    /// one.
    pub truncate_dim: Option<usize>,
    /// Bytes of the weights in memory.
    pub weight_bytes: u64,
}
