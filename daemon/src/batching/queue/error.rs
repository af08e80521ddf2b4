//! Why a queue takes no more work.

/// A queue refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// Too much is waiting already.
    #[error(
        "{waiting_bytes} bytes of text wait for this model, more than it takes: try again later"
    )]
    Full {
        /// Bytes that wait, of all connections or of this one.
        waiting_bytes: usize,
    },
    /// The model is about to leave the memory.
    #[error("the model is being unloaded")]
    Closed,
}
