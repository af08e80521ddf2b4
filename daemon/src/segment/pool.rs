//! The segments of one connection.

use crate::segment::credit::{Share, TotalCredit};
use crate::segment::sizes;
use crate::segment::sizes::Room;
use crate::segment::slot::Slot;
use crate::segment::slots::{Claim, Holder, Slots, footprint_bytes};
use crate::segment::spares::{SPARE_LEN_BYTES, Spares};
use crate::segment::{Backend, Segment, SegmentError};
use emberd_protocol::{SegmentAnnounce, SegmentId, SlotRef};
use std::os::fd::BorrowedFd;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::sleep;

/// The segments of one connection: made as they are needed, cut into slots, used again.
///
/// Two bounds: the slots that are not free hold at most the connection's credit, and the segments
/// of all connections hold at most the total. (Freed in an unlucky order, slots leave gaps; so the
/// segments of a connection may hold up to twice its credit.)
///
/// Dropping the pool gives everything back to the total at once. Memory that is still being
/// written lives until its [`Slot`] is gone.
#[derive(Debug)]
pub struct SegmentPool {
    spares: Arc<Spares>,
    credit_bytes: u64,
    total: Arc<TotalCredit>,
    state: Mutex<State>,
    /// Told when a slot is freed, a segment is there or will not come.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    segments: Vec<Held>,
    /// Bytes of slots that are not free.
    held_bytes: u64,
    segment_bytes: u64,
    /// A segment is being made. One at a time, so that a burst of requests shares it.
    is_growing: bool,
    next_segment: u32,
    next_generation: u64,
    /// Announced and given up, but not yet reported by `retire_idle`.
    retired: Vec<SegmentId>,
}

/// A segment of the pool.
#[derive(Debug)]
struct Held {
    id: SegmentId,
    segment: Arc<Segment>,
    slots: Slots,
    is_announced: bool,
    /// Somebody has tampered with it: it gets no more slots, and goes when those it has are free.
    is_damaged: bool,
    /// When its last slot was freed. Of no meaning while there are any.
    free_since: Instant,
    _share: Share,
}

/// What a try to reserve came to.
enum Attempt {
    Reserved(Slot),
    /// Another request has a segment made. It may have room for this one too.
    Growing,
    /// To be run where blocking is no harm.
    Grow(Growth),
    /// Nothing to be done until something is freed.
    Full(SegmentError),
}

impl SegmentPool {
    /// An empty pool that takes first segments from `spares` and has others made by its backend.
    #[must_use]
    pub fn new(spares: Arc<Spares>, credit_bytes: u64, total: Arc<TotalCredit>) -> Arc<Self> {
        Arc::new(Self {
            spares,
            credit_bytes,
            total,
            state: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Reserves a slot, so that a result has a home before it is computed.
    ///
    /// Where a slot is free, this is a lock and a short search, and completes at once. Otherwise a
    /// segment is added where the bounds allow, and where they do not, this waits for slots (or
    /// segments of other connections) to come back, for as long as `patience`; the making of a
    /// segment does not count. Cancelling it at any time loses nothing.
    ///
    /// # Errors
    /// [`SegmentError::NeverFits`] at once; [`SegmentError::Credit`] or [`SegmentError::Total`]
    /// when patience ends; and why no segment could be made.
    pub async fn reserve(
        self: &Arc<Self>,
        len_bytes: u64,
        patience: Duration,
    ) -> Result<Slot, SegmentError> {
        self.check_fits(len_bytes)?;
        if let Some(slot) = self.reserve_now(len_bytes) {
            return Ok(slot);
        }
        let mut patience_ends = pin!(sleep(patience));
        let mut is_modest = false;
        loop {
            let mut changed = pin!(self.changed.notified());
            let mut total_freed = pin!(self.total.freed().notified());
            // Listening from before the look on, so that no change falls in between.
            changed.as_mut().enable();
            total_freed.as_mut().enable();
            match self.attempt(len_bytes, is_modest)? {
                Attempt::Reserved(slot) => return Ok(slot),
                Attempt::Growing => changed.await,
                Attempt::Grow(growth) => {
                    let is_least = sizes::exact(len_bytes) == Some(growth.len_bytes);
                    let made = tokio::task::spawn_blocking(move || growth.run()).await;
                    match made.map_err(|_| SegmentError::Interrupted)? {
                        Err(SegmentError::NoMemory { .. }) if !is_least => is_modest = true,
                        made => made?,
                    }
                }
                Attempt::Full(error) => {
                    if matches!(error, SegmentError::Total { .. }) {
                        self.total.want();
                    }
                    tokio::select! {
                        biased;
                        () = changed => {}
                        () = total_freed => {}
                        () = &mut patience_ends => return Err(error),
                    }
                }
            }
        }
    }

    /// Takes back what the client no longer reads. `false` for a slot that it was not given, or
    /// that it freed before; nothing changes then.
    pub fn free(&self, slot: &SlotRef) -> bool {
        self.release(slot, Holder::Client)
    }

    /// What must be sent before the first response that points into `segment`: `Some` the first
    /// time only. The caller holds the writer from before this call until the announcement is
    /// written, so that no other response overtakes it.
    pub fn announce_once(&self, segment: SegmentId) -> Option<Announcement> {
        let mut state = self.lock();
        let held = state.segments.iter_mut().find(|held| held.id == segment)?;
        if std::mem::replace(&mut held.is_announced, true) {
            return None;
        }
        let message = SegmentAnnounce {
            segment,
            len_bytes: held.segment.len_bytes(),
            handle: held.segment.handle(),
        };
        Some(Announcement { message, segment: Arc::clone(&held.segment) })
    }

    /// Gives up segments of which every slot has been free for `idle`, and answers which ones the
    /// client has to be told of (those that were announced, and those that had to make way for
    /// larger ones since the last call). The caller holds the writer from before this call until
    /// the client was told.
    pub fn retire_idle(&self, idle: Duration, now: Instant) -> Vec<SegmentId> {
        let mut state = self.lock();
        let is_idle = |held: &mut Held| {
            let is_due = now.saturating_duration_since(held.free_since) >= idle;
            held.slots.is_free() && (is_due || held.is_damaged)
        };
        let gone: Vec<Held> = state.segments.extract_if(.., is_idle).collect();
        self.give_up(&mut state, gone);
        let retired = std::mem::take(&mut state.retired);
        drop(state);
        self.changed.notify_waiters();
        retired
    }

    /// Bytes of slots that may be taken at once.
    #[must_use]
    pub fn credit_bytes(&self) -> u64 {
        self.credit_bytes
    }

    /// Bytes of slots that are not free.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.lock().held_bytes
    }

    /// How many segments there are.
    #[must_use]
    pub fn segments(&self) -> u32 {
        u32::try_from(self.lock().segments.len()).unwrap_or(u32::MAX)
    }

    /// Bytes of the segments.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.lock().segment_bytes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What runs under the lock does not panic, short of a defect that is worse than going on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_fits(&self, len_bytes: u64) -> Result<(), SegmentError> {
        let never = |limit_bytes| Err(SegmentError::NeverFits { len_bytes, limit_bytes });
        if footprint_bytes(len_bytes).is_none_or(|bytes| bytes > self.credit_bytes) {
            return never(self.credit_bytes);
        }
        if sizes::exact(len_bytes).is_none_or(|bytes| bytes > self.total.limit_bytes()) {
            return never(self.total.limit_bytes());
        }
        Ok(())
    }

    /// A slot in what is there.
    fn reserve_now(self: &Arc<Self>, len_bytes: u64) -> Option<Slot> {
        let mut state = self.lock();
        self.has_credit(&state, len_bytes).then(|| self.take(&mut state, len_bytes))?
    }

    fn has_credit(&self, state: &State, len_bytes: u64) -> bool {
        footprint_bytes(len_bytes)
            .and_then(|bytes| state.held_bytes.checked_add(bytes))
            .is_some_and(|bytes| bytes <= self.credit_bytes)
    }

    fn take(self: &Arc<Self>, state: &mut State, len_bytes: u64) -> Option<Slot> {
        let generation = state.next_generation;
        let (held, claim) =
            state.segments.iter_mut().filter(|held| !held.is_damaged).find_map(|held| {
                held.slots.take(len_bytes, generation).map(|claim| (&*held, claim))
            })?;
        let place = SlotRef { segment: held.id, offset: claim.offset, len_bytes, generation };
        let segment = Arc::clone(&held.segment);
        state.next_generation += 1;
        state.held_bytes += footprint_bytes(len_bytes)?;
        Some(Slot::new(Arc::downgrade(self), segment, place))
    }

    /// A slot, by all means that do not block. A modest attempt adds the smallest segment.
    fn attempt(self: &Arc<Self>, len_bytes: u64, is_modest: bool) -> Result<Attempt, SegmentError> {
        let mut state = self.lock();
        if !self.has_credit(&state, len_bytes) {
            return Ok(Attempt::Full(self.out_of_credit(&state, len_bytes)));
        }
        loop {
            if let Some(slot) = self.take(&mut state, len_bytes) {
                return Ok(Attempt::Reserved(slot));
            }
            if state.is_growing {
                return Ok(Attempt::Growing);
            }
            let room = self.room(&state, is_modest);
            let Some(size) = sizes::choose(len_bytes, state.outgrown(), room) else {
                if self.make_way(&mut state, len_bytes, room) {
                    continue;
                }
                return Ok(Attempt::Full(self.out_of_room(&state, len_bytes)));
            };
            let Some(share) = self.total.share(size) else {
                // Another connection was quicker. There is less room now, so look again.
                continue;
            };
            if size == SPARE_LEN_BYTES
                && let Some(spare) = self.spares.take()
            {
                state.insert(spare, share)?;
                continue;
            }
            state.is_growing = true;
            return Ok(Attempt::Grow(Growth {
                pool: Arc::downgrade(self),
                backend: Arc::clone(self.spares.backend()),
                len_bytes: size,
                share: Some(share),
            }));
        }
    }

    fn room(&self, state: &State, is_modest: bool) -> Room {
        let within = |bytes: u64| bytes.saturating_sub(state.segment_bytes);
        let credit_bytes = sizes::exact(self.credit_bytes).unwrap_or(self.credit_bytes);
        let total_left = self.total.limit_bytes().saturating_sub(self.total.used_bytes());
        Room {
            ahead_bytes: if is_modest { 0 } else { within(credit_bytes) },
            need_bytes: within(credit_bytes.saturating_mul(2)).min(total_left),
        }
    }

    /// Gives up one free segment, if giving up all of them makes enough room. Each is too small
    /// for the need, or it would have been taken.
    fn make_way(&self, state: &mut State, len_bytes: u64, room: Room) -> bool {
        let free = || state.segments.iter().enumerate().filter(|(_, held)| held.slots.is_free());
        let free_bytes: u64 = free().map(|(_, held)| held.segment.len_bytes()).sum();
        let smallest = free().min_by_key(|(_, held)| held.segment.len_bytes());
        let needed = sizes::exact(len_bytes).unwrap_or(u64::MAX);
        match smallest.map(|(index, _)| index) {
            Some(index) if room.need_bytes.saturating_add(free_bytes) >= needed => {
                let gone = state.segments.remove(index);
                self.give_up(state, vec![gone]);
                true
            }
            _ => false,
        }
    }

    /// The last step of segments that were taken out of the state.
    fn give_up(&self, state: &mut State, gone: Vec<Held>) {
        for held in &gone {
            state.segment_bytes -= held.segment.len_bytes();
            if held.is_announced {
                state.retired.push(held.id);
            }
        }
        self.spares.give_up(gone.into_iter().map(|held| held.segment));
    }

    fn out_of_credit(&self, state: &State, len_bytes: u64) -> SegmentError {
        SegmentError::Credit {
            len_bytes,
            held_bytes: state.held_bytes,
            credit_bytes: self.credit_bytes,
        }
    }

    fn out_of_room(&self, state: &State, len_bytes: u64) -> SegmentError {
        let (used_bytes, limit_bytes) = (self.total.used_bytes(), self.total.limit_bytes());
        let needed = sizes::exact(len_bytes).unwrap_or(u64::MAX);
        if needed > limit_bytes.saturating_sub(used_bytes) {
            SegmentError::Total { len_bytes, used_bytes, limit_bytes }
        } else {
            self.out_of_credit(state, len_bytes)
        }
    }

    /// A slot of the daemon becomes the client's.
    pub(super) fn hand_over(&self, slot: &SlotRef) {
        let mut state = self.lock();
        let held = state.segments.iter_mut().find(|held| held.id == slot.segment);
        let is_done = held.is_some_and(|held| held.slots.hand_over(claim(slot)));
        debug_assert!(is_done, "a slot that is alive was lost by its pool");
    }

    /// No more slots in a segment that is not as it was made.
    pub(super) fn abandon(&self, segment: SegmentId) {
        let mut state = self.lock();
        if let Some(held) = state.segments.iter_mut().find(|held| held.id == segment)
            && !std::mem::replace(&mut held.is_damaged, true)
        {
            let name = held.segment.handle();
            tracing::warn!(?name, "another process has cut a segment short: it is given up");
        }
    }

    /// Frees a slot, if `holder` has it.
    pub(super) fn release(&self, slot: &SlotRef, holder: Holder) -> bool {
        let mut state = self.lock();
        let Some(held) = state.segments.iter_mut().find(|held| held.id == slot.segment) else {
            return false;
        };
        let Some(freed) = held.slots.free(claim(slot), holder) else { return false };
        if held.slots.is_free() {
            held.free_since = Instant::now();
        }
        state.held_bytes -= freed;
        drop(state);
        self.changed.notify_waiters();
        true
    }
}

impl Drop for SegmentPool {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let segments = std::mem::take(&mut state.segments);
        self.spares.give_up(segments.into_iter().map(|held| held.segment));
    }
}

impl State {
    /// The size above which the next segment should be. The first two may be spares.
    fn outgrown(&self) -> u64 {
        let largest = self.segments.iter().map(|held| held.segment.len_bytes()).max();
        if self.segments.len() < 2 { 0 } else { largest.unwrap_or(0) }
    }

    fn insert(&mut self, segment: Segment, share: Share) -> Result<(), SegmentError> {
        let id = SegmentId(self.next_segment);
        self.next_segment = self.next_segment.checked_add(1).ok_or(SegmentError::NumbersUsedUp)?;
        self.segment_bytes += segment.len_bytes();
        self.segments.push(Held {
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
}

fn claim(slot: &SlotRef) -> Claim {
    Claim { offset: slot.offset, len_bytes: slot.len_bytes, generation: slot.generation }
}

/// A segment on its way into a pool. However it ends, those who wait for it are told.
#[derive(Debug)]
struct Growth {
    pool: Weak<SegmentPool>,
    backend: Arc<dyn Backend>,
    len_bytes: u64,
    share: Option<Share>,
}

impl Growth {
    fn run(mut self) -> Result<(), SegmentError> {
        let segment = self.backend.create(self.len_bytes)?;
        match (self.pool.upgrade(), self.share.take()) {
            (Some(pool), Some(share)) => pool.lock().insert(segment, share),
            // The connection has ended meanwhile.
            _ => Ok(()),
        }
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        drop(self.share.take());
        if let Some(pool) = self.pool.upgrade() {
            pool.lock().is_growing = false;
            pool.changed.notify_waiters();
        }
    }
}

/// What the client must know of a segment, and what must ride along.
#[derive(Debug)]
pub struct Announcement {
    /// The message.
    pub message: SegmentAnnounce,
    /// Keeps the descriptor open while it is sent.
    pub segment: Arc<Segment>,
}

impl Announcement {
    /// The descriptor that rides on the message's frame, where the backend has one.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.segment.descriptor()
    }
}
