//! What a finished result is.

use crate::segment::error::SegmentError;
use emberd_protocol::SlotRef;

/// A finished result.
#[derive(Debug)]
pub enum Finished {
    /// The values, as they follow the message.
    Inline(Vec<u8>),
    /// A slot that belongs to the client from now on. The client must be told, or the slot is lost
    /// until the connection ends.
    Slot(SlotRef),
    /// The rows could not be written to the memory that the client reads.
    Lost(SegmentError),
}
