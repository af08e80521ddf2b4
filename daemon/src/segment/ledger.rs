//! Which segments a connection has, and who holds the slots in them.

use crate::segment::credit::Share;
use crate::segment::error::SegmentError;
use crate::segment::memory::Segment;
use crate::segment::slots::{Holder, SlotKey, Slots, footprint_bytes};
use crate::segment::spares::Spares;
use emberd_protocol::{SegmentAnnounce, SegmentId, SlotRef};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The segments of one connection, behind a lock. Dropping it gives them up.
#[derive(Debug)]
pub(super) struct Ledger {
    spares: Arc<Spares>,
    state: Mutex<LedgerState>,
    changed: Notify,
}

/// The segments of one connection.
#[derive(Debug, Default)]
pub(super) struct LedgerState {
    segments: Vec<PoolSegment>,
    /// Bytes of slots that are not free.
    pub(super) held_bytes: u64,
    /// Bytes of the segments.
    pub(super) segment_bytes: u64,
    /// A segment is being made. One at a time, so that a burst of requests shares it.
    pub(super) is_growing: bool,
    next_segment: u32,
    next_generation: u64,
    /// Segments that were announced and given up, but not yet reported as retired.
    retired: Vec<SegmentId>,
}

impl Ledger {
    /// No segments yet. Those that are given up go to `spares`, which unmaps them.
    pub(super) fn new(spares: Arc<Spares>) -> Self {
        Self { spares, state: Mutex::default(), changed: Notify::new() }
    }

    /// Locks the state.
    pub(super) fn lock(&self) -> MutexGuard<'_, LedgerState> {
        // Nothing under the lock panics, except for a defect that is worse than continuing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where new segments come from.
    pub(super) fn spares(&self) -> &Arc<Spares> {
        &self.spares
    }

    /// Notified when a slot is freed, and when a segment was made or could not be made.
    pub(super) fn changed(&self) -> &Notify {
        &self.changed
    }

    /// A slot of the daemon becomes the client's.
    pub(super) fn hand_over(&self, slot: &SlotRef) {
        let mut state = self.lock();
        let is_done = state.find(slot.segment).is_some_and(|own| own.slots.hand_over(key(slot)));
        debug_assert!(is_done, "a slot that is alive was lost by its pool");
    }

    /// Stops using a segment that another process has truncated.
    pub(super) fn abandon(&self, segment: SegmentId) {
        if let Some(own) = self.lock().find(segment)
            && !std::mem::replace(&mut own.is_damaged, true)
        {
            let name = own.segment.handle();
            tracing::warn!(?name, "another process has truncated a segment: it is given up");
        }
    }

    /// Frees a slot. `false` if `holder` does not hold it.
    pub(super) fn release(&self, slot: &SlotRef, holder: Holder) -> bool {
        let mut state = self.lock();
        let Some(own) = state.find(slot.segment) else { return false };
        let Some(freed) = own.slots.free(key(slot), holder) else { return false };
        if own.slots.is_free() {
            own.free_since = Instant::now();
        }
        state.held_bytes -= freed;
        drop(state);
        self.changed.notify_waiters();
        true
    }

    /// Gives up segments whose slots have all been free for `idle`. Returns those that the client
    /// must be told about.
    pub(super) fn retire_idle(&self, idle: Duration, now: Instant) -> Vec<SegmentId> {
        let mut state = self.lock();
        let is_idle = |own: &mut PoolSegment| {
            let is_due = now.saturating_duration_since(own.free_since) >= idle;
            own.slots.is_free() && (is_due || own.is_damaged)
        };
        let gone: Vec<PoolSegment> = state.segments.extract_if(.., is_idle).collect();
        state.give_up(&self.spares, gone);
        let retired = std::mem::take(&mut state.retired);
        drop(state);
        self.changed.notify_waiters();
        retired
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let segments = std::mem::take(&mut state.segments);
        self.spares.give_up(segments.into_iter().map(|own| own.segment));
    }
}

impl LedgerState {
    /// How many segments there are.
    pub(super) fn len(&self) -> usize {
        self.segments.len()
    }

    /// The size above which the next segment should be. The first two may be spares.
    pub(super) fn outgrown(&self) -> u64 {
        let largest = self.segments.iter().map(|own| own.segment.len_bytes()).max();
        if self.segments.len() < 2 { 0 } else { largest.unwrap_or(0) }
    }

    /// Adds a segment, which `share` pays for.
    ///
    /// # Errors
    /// [`SegmentError::NumbersUsedUp`].
    pub(super) fn insert(&mut self, segment: Segment, share: Share) -> Result<(), SegmentError> {
        let id = SegmentId(self.next_segment);
        self.next_segment = self.next_segment.checked_add(1).ok_or(SegmentError::NumbersUsedUp)?;
        self.segment_bytes += segment.len_bytes();
        self.segments.push(PoolSegment {
            id,
            slots: Slots::new(segment.len_bytes()),
            segment: Arc::new(segment),
            is_announced: false,
            is_damaged: false,
            free_since: Instant::now(),
            _share: share,
        });
        Ok(())
    }

    /// Takes a slot for the daemon in the segments that there are.
    pub(super) fn take(&mut self, len_bytes: u64) -> Option<(Arc<Segment>, SlotRef)> {
        let generation = self.next_generation;
        let mut usable = self.segments.iter_mut().filter(|own| !own.is_damaged);
        let take = |own: &'_ mut PoolSegment| own.slots.take(len_bytes, generation);
        let (own, key) = usable.find_map(|own| take(own).map(|key| (&*own, key)))?;
        let slot = SlotRef { segment: own.id, offset: key.offset, len_bytes, generation };
        let segment = Arc::clone(&own.segment);
        self.next_generation += 1;
        self.held_bytes += footprint_bytes(len_bytes)?;
        Some((segment, slot))
    }

    /// A segment with its announcement, the first time only.
    pub(super) fn announce_once(
        &mut self,
        segment: SegmentId,
    ) -> Option<(SegmentAnnounce, Arc<Segment>)> {
        let own = self.find(segment)?;
        if std::mem::replace(&mut own.is_announced, true) {
            return None;
        }
        let (len_bytes, handle) = (own.segment.len_bytes(), own.segment.handle());
        Some((SegmentAnnounce { segment, len_bytes, handle }, Arc::clone(&own.segment)))
    }

    /// Gives up the smallest free segment if `needed` bytes fit into `left_bytes` once all free
    /// segments are given up. (A free segment that is large enough would have been used.)
    pub(super) fn make_way(&mut self, spares: &Spares, needed: u64, left_bytes: u64) -> bool {
        let free = || self.segments.iter().enumerate().filter(|(_, own)| own.slots.is_free());
        let free_bytes: u64 = free().map(|(_, own)| own.segment.len_bytes()).sum();
        let smallest = free().min_by_key(|(_, own)| own.segment.len_bytes());
        match smallest.map(|(index, _)| index) {
            Some(index) if left_bytes.saturating_add(free_bytes) >= needed => {
                let gone = self.segments.remove(index);
                self.give_up(spares, vec![gone]);
                true
            }
            _ => false,
        }
    }

    /// Has segments unmapped that were removed from the list.
    fn give_up(&mut self, spares: &Spares, gone: Vec<PoolSegment>) {
        for own in &gone {
            self.segment_bytes -= own.segment.len_bytes();
            if own.is_announced {
                self.retired.push(own.id);
            }
        }
        spares.give_up(gone.into_iter().map(|own| own.segment));
    }

    fn find(&mut self, segment: SegmentId) -> Option<&mut PoolSegment> {
        self.segments.iter_mut().find(|own| own.id == segment)
    }
}

#[derive(Debug)]
struct PoolSegment {
    id: SegmentId,
    segment: Arc<Segment>,
    slots: Slots,
    is_announced: bool,
    /// Another process has tampered with it: it gets no more slots, and is given up when the slots
    /// in it are free.
    is_damaged: bool,
    /// When its last slot was freed. Without meaning while there are any.
    free_since: Instant,
    _share: Share,
}

fn key(slot: &SlotRef) -> SlotKey {
    SlotKey { offset: slot.offset, len_bytes: slot.len_bytes, generation: slot.generation }
}
