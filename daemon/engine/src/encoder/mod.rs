//! Encoders: from token ids to a row for each token.
//!
//! [`network::Network`] computes; each file below [`architectures`] says of which parts the network of
//! an architecture consists.

pub(crate) mod architecture;
pub(crate) mod architectures;
mod block;
pub(crate) mod head_names;
pub(crate) mod network;
pub(crate) mod workspace;
