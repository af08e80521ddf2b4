//! From a request to its answer.

pub(crate) mod dispatch;
pub(crate) mod embed;
pub(crate) mod events;
pub(crate) mod failure;
pub(crate) mod latency;
pub(crate) mod rerank;
pub(crate) mod status;
pub(crate) mod text;
