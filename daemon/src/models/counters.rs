//! What happened to a model since the daemon started.

use crate::batching::generation::TextWork;
use crate::batching::worker::WorkDone;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What happened to a model since the daemon started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Successful loads.
    pub(crate) loads: AtomicU64,
    /// How long the last one took, in milliseconds.
    pub(crate) load_ms: AtomicU64,
    /// Instances that were unloaded.
    pub(crate) unloads: AtomicU64,
    /// Requests that were answered with a result.
    pub(crate) requests: AtomicU64,
    /// Rows that were sent inline.
    pub(crate) rows_inline: AtomicU64,
    /// Rows that were sent through shared memory.
    pub(crate) rows_shared: AtomicU64,
    /// Texts that were not computed: their rows were in the cache, or computed for another request,
    /// or they occurred twice in one request.
    pub(crate) texts_cached: AtomicU64,
    /// The work of the workers that make rows and scores, and fill masks.
    pub(crate) work: Arc<WorkDone>,
    /// The work of the workers that generate texts.
    pub(crate) texts: Arc<TextWork>,
}
