//! What follows an encoder, or replaces it: pooling, classifiers, masked language models, static tables.

pub(crate) mod classifier;
pub(crate) mod head;
pub(crate) mod masked_lm;
pub(crate) mod pooling;
pub(crate) mod post_pooling;
pub(crate) mod static_embedding;
pub(crate) mod token_table;
