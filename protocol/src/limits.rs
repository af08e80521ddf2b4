//! Sizes that no sender exceeds, and no reader accepts more than.

/// The largest encoded message, in bytes. Texts and rows follow the message and do not count.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// The largest frame, header included.
pub const MAX_FRAME_BYTES: usize = 32 << 20;
