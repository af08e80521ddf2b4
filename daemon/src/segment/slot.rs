//! A part of a segment that the daemon writes.

use crate::segment::ledger::Ledger;
use crate::segment::memory::Segment;
use crate::segment::result::{Finished, FinishedSlot};
use crate::segment::slots::Holder;
use emberd_protocol::SlotRef;
use std::fmt;
use std::sync::{Arc, Weak};

/// A reserved part of a segment that only the daemon uses. Dropping it frees it.
#[derive(Debug)]
pub struct Slot {
    ledger: Weak<Ledger>,
    segment: Arc<Segment>,
    range: SlotRef,
    staged: Staged,
    /// `false` once the client has to free it.
    is_daemons: bool,
}

impl Slot {
    /// `range` was just taken in `segment` for the daemon, and for this slot alone.
    pub(super) fn new(ledger: Weak<Ledger>, segment: Arc<Segment>, range: SlotRef) -> Self {
        Self { ledger, segment, range, staged: Staged::default(), is_daemons: true }
    }

    /// Bytes that were reserved.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.range.len_bytes
    }

    /// The slot's memory. Its content is undefined, but never another client's.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        let range =
            usize::try_from(self.range.offset).ok().zip(self.range.len_bytes.try_into().ok());
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
            _ => unreachable!("{:?} lies outside of {:?}", self.range, self.segment),
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

    /// Hands the slot over to the client, which has to free it. (If the pool is gone, so is the
    /// client.)
    pub(crate) fn hand_over(mut self) -> Finished {
        let len = usize::try_from(self.range.len_bytes).unwrap_or(usize::MAX);
        let staged: &[u8] = bytemuck::cast_slice(&self.staged.0);
        let written = self.segment.write(self.range.offset, &staged[..staged.len().min(len)]);
        if let Err(error) = written {
            if let Some(ledger) = self.ledger.upgrade() {
                ledger.abandon(self.range.segment);
            }
            return Finished::Lost(error);
        }
        self.is_daemons = false;
        if let Some(ledger) = self.ledger.upgrade() {
            ledger.hand_over(&self.range);
        }
        Finished::Slot(FinishedSlot::new(Weak::clone(&self.ledger), self.range))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.is_daemons
            && let Some(ledger) = self.ledger.upgrade()
        {
            ledger.release(&self.range, Holder::Daemon);
        }
    }
}

/// The content for a segment that is not mapped, as whole floats.
#[derive(Default)]
struct Staged(Vec<f32>);

/// Shows only the length: other threads may be writing the values through rows.
impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Staged").field(&self.0.len()).finish()
    }
}
