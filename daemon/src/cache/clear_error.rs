//! Why the file of the cache was not emptied.

use std::time::Duration;

/// Why the file was not emptied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClearError {
    /// It cannot be used.
    #[error("{report}")]
    Unusable {
        /// What the writer reported, for people.
        report: String,
    },
    /// The disk did not answer in time.
    #[error("its file was not emptied within {0:?}")]
    Late(Duration),
}
