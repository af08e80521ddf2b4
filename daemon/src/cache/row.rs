//! A row as the cache keeps it.

use std::sync::Arc;

/// A whole row of the model, shared with the cache. It is copied only into a result.
#[derive(Debug, Clone, PartialEq)]
pub struct CachedRow {
    /// All values that the model computes, before any cut.
    pub values: Arc<[f32]>,
    /// Whether its text was longer than the model's limit and was truncated.
    pub truncated: bool,
}
