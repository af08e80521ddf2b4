//! A part of a segment that is the daemon's to write.

use super::slots::Holder;
use super::{Segment, SegmentPool};
use emberd_protocol::SlotRef;
use std::sync::{Arc, Weak};

/// A reserved part of a segment, the daemon's alone. Dropping it frees it.
#[derive(Debug)]
pub struct Slot {
    pool: Weak<SegmentPool>,
    segment: Arc<Segment>,
    place: SlotRef,
    /// `false` once it is the client's to free.
    is_daemons: bool,
}

impl Slot {
    /// `place` is what the pool has just taken in `segment` for the daemon, and for this slot alone.
    pub(super) fn new(pool: Weak<SegmentPool>, segment: Arc<Segment>, place: SlotRef) -> Self {
        Self { pool, segment, place, is_daemons: true }
    }

    /// Bytes that were asked for.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.place.len_bytes
    }

    /// The slot's memory. What is in it is unknown, but never another client's.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        let whole = self.segment.bytes();
        let range =
            usize::try_from(self.place.offset).ok().zip(self.place.len_bytes.try_into().ok());
        let (offset, len): (usize, usize) = match range {
            Some((offset, len))
                if offset.checked_add(len).is_some_and(|end| end <= whole.len()) =>
            {
                (offset, len)
            }
            _ => unreachable!("{:?} lies outside of {:?}", self.place, self.segment),
        };
        // SAFETY: `offset` is inside of the mapping, as just checked.
        let start = unsafe { whole.cast::<u8>().add(offset) };
        // SAFETY: the range is inside of the mapping, as just checked; the mapping is initialised
        // and writable, and lives as long as `self.segment`, so as long as `self`. No one else in
        // this process has a reference into the range: `Slots` gives it to one `Slot` at a time,
        // which is not `Clone`, and the result borrows that one mutably. Clients have no writable
        // mapping (memfd) or are the same user, who could as well write through /proc (posix).
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) }
    }

    /// Makes it the client's to free. (With the pool gone there is no client either.)
    pub(crate) fn hand_over(mut self) -> SlotRef {
        self.is_daemons = false;
        if let Some(pool) = self.pool.upgrade() {
            pool.hand_over(&self.place);
        }
        self.place
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.is_daemons
            && let Some(pool) = self.pool.upgrade()
        {
            pool.release(&self.place, Holder::Daemon);
        }
    }
}
