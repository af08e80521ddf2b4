//! Why a queue takes no more work.

/// A queue refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// Too much is waiting already.
    #[error("this model's queue is full, with {waiting_bytes} bytes of text: try again later")]
    Full {
        /// Bytes that wait, of all connections or of this one.
        waiting_bytes: usize,
    },
    /// The model is about to be unloaded.
    #[error("the model is being unloaded")]
    Closed,
}
