//! What makes segments.

use crate::segment::error::SegmentError;
use crate::segment::memory::Segment;
use emberd_protocol::SegmentBackend;
use std::fmt::Debug;

/// Makes segments of one kind.
pub trait Backend: Debug + Send + Sync {
    /// The kind of its segments.
    fn kind(&self) -> SegmentBackend;

    /// Makes a segment of at least `len_bytes`, with its memory allocated and touched. Blocks for
    /// about a millisecond per MiB.
    ///
    /// # Errors
    /// [`SegmentError::NoMemory`] if the machine, the control group or `/dev/shm` has less than
    /// that, and [`SegmentError::System`] for anything else that the kernel refuses.
    fn create(&self, len_bytes: u64) -> Result<Segment, SegmentError>;
}
