//! How much memory a segment may have.

use crate::ground::headroom::Headroom;
use crate::segment::error::SegmentError;
use nix::errno::Errno;

/// Lengths of segments are multiples of this many bytes, which is a multiple of any Linux's page.
pub(super) const GRANULE_BYTES: u64 = 64 << 10;

/// The length of a segment for at least `len_bytes`.
///
/// A memfd has no mount with a limit: `fallocate` continues until the kernel kills a process for
/// lack of memory. So free memory is checked first.
///
/// # Errors
/// [`SegmentError::NoMemory`] if there is not enough.
pub(super) fn admit(len_bytes: u64) -> Result<u64, SegmentError> {
    len_bytes
        .max(1)
        .checked_next_multiple_of(GRANULE_BYTES)
        .filter(|rounded| *rounded <= Headroom::now().free_bytes)
        .ok_or(SegmentError::NoMemory { len_bytes })
}

/// Repeats an allocation that a signal to the thread interrupts. Memory that it has allocated stays.
pub(super) fn retry_interrupted(mut step: impl FnMut() -> nix::Result<()>) -> nix::Result<()> {
    loop {
        match step() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}
