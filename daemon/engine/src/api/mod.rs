//! The interface of the engine: the traits of loaded models, their inputs, and their errors.
//!
//! A model is an `Arc<dyn Trait>`: immutable, and shared by the threads that compute with it. What a
//! computation writes is in a context, of which each thread has its own.

pub(crate) mod embedding;
pub(crate) mod error;
pub(crate) mod generation;
pub(crate) mod generation_defaults;
pub(crate) mod masks;
pub(crate) mod need;
pub(crate) mod parts;
pub(crate) mod rank;
pub(crate) mod sequence;
pub(crate) mod spec;
pub(crate) mod weight_type;
