//! What a model folder says: configuration, tensors, limits. Nothing in it is trusted.

pub(crate) mod fingerprint;
pub(crate) mod folder;
pub(crate) mod load_error;
pub(crate) mod modules;
pub(crate) mod raw_config;
pub(crate) mod reader;
pub(crate) mod sentence;
pub(crate) mod text_limits;
pub(crate) mod weights;
