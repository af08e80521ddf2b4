//! Encoders: the network they all are, and one file for each architecture.

pub(crate) mod architectures;
pub(crate) mod network;
pub(crate) mod transformer;
pub(crate) mod workspace;
