//! A model folder's files: configurations, tensors, limits. None of their contents is trusted.
//!
//! [`layout`] and [`modules`] describe the parts of a folder, [`raw_config`] reads `config.json`, and
//! [`tensor_reader`] reads the tensors of [`weights`], for both families of networks. The descriptions
//! ([`encoder_spec`], [`pooling`], [`module_spec`], [`text_limits`]) are plain data: they compute nothing.
//!
//! Invariant: an error names the file, and the setting or tensor in it.

pub(crate) mod encoder_spec;
pub(crate) mod fingerprint;
pub(crate) mod folder;
pub(crate) mod head_kind;
pub(crate) mod layer_reader;
pub(crate) mod layout;
pub(crate) mod load_error;
mod module_configs;
pub(crate) mod module_spec;
pub(crate) mod modules;
pub(crate) mod pooling;
pub(crate) mod raw_config;
pub(crate) mod sentence;
pub(crate) mod t5_config;
pub(crate) mod tensor_reader;
pub(crate) mod text_limits;
pub(crate) mod truncation_side;
pub(crate) mod weights;
