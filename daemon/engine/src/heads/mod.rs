//! What follows an encoder, or replaces it: pooling, classifiers, masked language models, static tables.
//!
//! A head is described by `checkpoint` (a folder's files) and `encoder` (the names of its tensors); here
//! it has weights and computes.

mod classifier;
pub(crate) mod classifier_spec;
mod dense_activation;
mod mask_head;
pub(crate) mod masked_lm;
pub(crate) mod pooling;
pub(crate) mod pooling_head;
mod post_pooling;
pub(crate) mod ranker;
pub(crate) mod static_embedding;
mod token_table;
pub(crate) mod transformer;
