//! A part of a segment that is the daemon's to write.

use crate::segment::rows::Finished;
use crate::segment::slots::Holder;
use crate::segment::{Segment, SegmentPool};
use emberd_protocol::SlotRef;
use std::fmt;
use std::sync::{Arc, Weak};

/// A reserved part of a segment, the daemon's alone. Dropping it frees it.
#[derive(Debug)]
pub struct Slot {
    pool: Weak<SegmentPool>,
    segment: Arc<Segment>,
    place: SlotRef,
    staged: Staged,
    /// `false` once it is the client's to free.
    is_daemons: bool,
}

/// What is to be written to a segment that is not mapped, as whole floats.
#[derive(Default)]
struct Staged(Vec<f32>);

/// Tells the length alone: the values may be in the hands of rows, which other threads write.
impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Staged").field(&self.0.len()).finish()
    }
}

impl Slot {
    /// `place` is what the pool has just taken in `segment` for the daemon, and for this slot alone.
    pub(super) fn new(pool: Weak<SegmentPool>, segment: Arc<Segment>, place: SlotRef) -> Self {
        Self { pool, segment, place, staged: Staged::default(), is_daemons: true }
    }

    /// Bytes that were asked for.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.place.len_bytes
    }

    /// The slot's memory. What is in it is unknown, but never another client's.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        let range =
            usize::try_from(self.place.offset).ok().zip(self.place.len_bytes.try_into().ok());
        let Some(whole) = self.segment.mapped() else {
            let len = range.map_or(0, |(_, len): (usize, usize)| len);
            self.staged.0.resize(len.div_ceil(size_of::<f32>()), 0.0);
            return &mut bytemuck::cast_slice_mut(&mut self.staged.0)[..len];
        };
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
        // which is not `Clone`, and the result borrows that one mutably. Clients can neither map it
        // to be written nor cut it short: what is mapped here is sealed.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) }
    }

    /// Makes it the client's to free. (With the pool gone there is no client either.)
    pub(crate) fn hand_over(mut self) -> Finished {
        let len = usize::try_from(self.place.len_bytes).unwrap_or(usize::MAX);
        let staged: &[u8] = bytemuck::cast_slice(&self.staged.0);
        let written = self.segment.write(self.place.offset, &staged[..staged.len().min(len)]);
        if let Err(error) = written {
            if let Some(pool) = self.pool.upgrade() {
                pool.abandon(self.place.segment);
            }
            return Finished::Lost(error);
        }
        self.is_daemons = false;
        if let Some(pool) = self.pool.upgrade() {
            pool.hand_over(&self.place);
        }
        Finished::Slot(self.place)
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
