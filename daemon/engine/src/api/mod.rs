//! What the daemon asks of a model: the traits, their inputs and their errors.

pub(crate) mod embedding;
pub(crate) mod generation;
