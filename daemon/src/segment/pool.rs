//! Slots for the results of one connection.

use crate::segment::credit::TotalCredit;
use crate::segment::error::SegmentError;
use crate::segment::growth::Growth;
use crate::segment::ledger::{Ledger, LedgerState};
use crate::segment::memory::Segment;
use crate::segment::sizes;
use crate::segment::sizes::SizeBudget;
use crate::segment::slot::Slot;
use crate::segment::slots::{Holder, footprint_bytes};
use crate::segment::spares::{SPARE_LEN_BYTES, Spares};
use emberd_protocol::{SegmentAnnounce, SegmentId, SlotRef};
use std::os::fd::BorrowedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// The segments of one connection: made when they are needed, cut into slots, and used again.
///
/// There are two limits: the slots that are not free hold at most the connection's credit, and the
/// segments of all connections hold at most the total. (Slots that are freed in an unlucky order
/// leave gaps, so the segments of a connection may hold up to twice its credit.)
///
/// Dropping the pool returns everything to the total at once. Memory that is still being written
/// lives until its [`Slot`] is dropped.
#[derive(Debug)]
pub struct SegmentPool {
    ledger: Arc<Ledger>,
    credit_bytes: u64,
    total: Arc<TotalCredit>,
}

/// What the client must know about a segment, and the segment itself.
#[derive(Debug)]
pub struct Announcement {
    /// The message.
    pub message: SegmentAnnounce,
    /// Keeps the descriptor open while it is sent.
    pub segment: Arc<Segment>,
}

impl SegmentPool {
    /// An empty pool. It takes its first segments from `spares`, and others from the backend of
    /// `spares`.
    #[must_use]
    pub fn new(spares: Arc<Spares>, credit_bytes: u64, total: Arc<TotalCredit>) -> Arc<Self> {
        Arc::new(Self { ledger: Arc::new(Ledger::new(spares)), credit_bytes, total })
    }

    /// Reserves a slot, so that a result has its memory before it is computed.
    ///
    /// If a slot is free, this takes a lock and a short search, and completes at once. Otherwise it
    /// adds a segment if the limits allow that, and else waits up to `patience` for slots (or the
    /// segments of other connections) to be freed. Making a segment does not count against
    /// `patience`. It may be cancelled at any time without losing anything.
    ///
    /// # Errors
    /// [`SegmentError::NeverFits`] at once; [`SegmentError::Credit`] or [`SegmentError::Total`]
    /// when `patience` ends; or why a segment could not be made.
    pub async fn reserve(&self, len_bytes: u64, patience: Duration) -> Result<Slot, SegmentError> {
        self.check_fits(len_bytes)?;
        if let Some(slot) = self.reserve_now(len_bytes) {
            return Ok(slot);
        }
        let mut patience_ends = pin!(sleep(patience));
        let mut is_modest = false;
        loop {
            let mut changed = pin!(self.ledger.changed().notified());
            let mut total_freed = pin!(self.total.freed().notified());
            // Enabled before the attempt, so that no change between the two is missed.
            changed.as_mut().enable();
            total_freed.as_mut().enable();
            match self.attempt(len_bytes, is_modest)? {
                Attempt::Reserved(slot) => return Ok(slot),
                Attempt::Growing => changed.await,
                Attempt::Grow(growth) => {
                    let is_least = sizes::exact(len_bytes) == Some(growth.len_bytes());
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

    /// Frees a slot that the client no longer reads. `false`, without any effect, if the slot was
    /// not handed over to the client, or was freed before.
    pub fn free(&self, slot: &SlotRef) -> bool {
        self.ledger.release(slot, Holder::Client)
    }

    /// What must be sent before the first response that points into `segment`; `Some` the first
    /// time only. The caller holds the writer from before this call until the announcement is
    /// written, so that no other response overtakes it.
    pub fn announce_once(&self, segment: SegmentId) -> Option<Announcement> {
        let (message, segment) = self.ledger.lock().announce_once(segment)?;
        Some(Announcement { message, segment })
    }

    /// Gives up segments whose slots have all been free for `idle`. Returns the segments that the
    /// client must be told about: those that were announced, including those that made way for larger
    /// ones since the last call. The caller holds the writer from before this call until the client
    /// was told.
    pub fn retire_idle(&self, idle: Duration, now: Instant) -> Vec<SegmentId> {
        self.ledger.retire_idle(idle, now)
    }

    /// Bytes of slots that the connection may hold at the same time.
    #[must_use]
    pub fn credit_bytes(&self) -> u64 {
        self.credit_bytes
    }

    /// Bytes of slots that are not free.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.ledger.lock().held_bytes
    }

    /// How many segments there are.
    #[must_use]
    pub fn segments(&self) -> u32 {
        u32::try_from(self.ledger.lock().len()).unwrap_or(u32::MAX)
    }

    /// Bytes of the segments.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.ledger.lock().segment_bytes
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

    /// A slot in the segments that there are.
    fn reserve_now(&self, len_bytes: u64) -> Option<Slot> {
        let mut state = self.ledger.lock();
        self.has_credit(&state, len_bytes).then(|| self.take(&mut state, len_bytes))?
    }

    fn has_credit(&self, state: &LedgerState, len_bytes: u64) -> bool {
        footprint_bytes(len_bytes)
            .and_then(|bytes| state.held_bytes.checked_add(bytes))
            .is_some_and(|bytes| bytes <= self.credit_bytes)
    }

    fn take(&self, state: &mut LedgerState, len_bytes: u64) -> Option<Slot> {
        let (segment, slot) = state.take(len_bytes)?;
        Some(Slot::new(Arc::downgrade(&self.ledger), segment, slot))
    }

    /// Reserves a slot without blocking, if that is possible. A modest attempt adds only the
    /// smallest segment.
    fn attempt(&self, len_bytes: u64, is_modest: bool) -> Result<Attempt, SegmentError> {
        let mut state = self.ledger.lock();
        if !self.has_credit(&state, len_bytes) {
            return Ok(Attempt::Full(self.out_of_credit(&state, len_bytes)));
        }
        let spares = self.ledger.spares();
        loop {
            if let Some(slot) = self.take(&mut state, len_bytes) {
                return Ok(Attempt::Reserved(slot));
            }
            if state.is_growing {
                return Ok(Attempt::Growing);
            }
            let budget = self.budget(&state, is_modest);
            let Some(size) = sizes::choose(len_bytes, state.outgrown(), budget) else {
                let needed = sizes::exact(len_bytes).unwrap_or(u64::MAX);
                if state.make_way(spares, needed, budget.need_bytes) {
                    continue;
                }
                return Ok(Attempt::Full(self.out_of_memory(&state, len_bytes)));
            };
            let Some(share) = self.total.share(size) else {
                // Another connection was quicker, so less is left than the budget says.
                continue;
            };
            if size == SPARE_LEN_BYTES
                && let Some(spare) = spares.take()
            {
                state.insert(spare, share)?;
                continue;
            }
            state.is_growing = true;
            let (ledger, backend) = (Arc::downgrade(&self.ledger), Arc::clone(spares.backend()));
            return Ok(Attempt::Grow(Growth::new(ledger, backend, size, share)));
        }
    }

    fn budget(&self, state: &LedgerState, is_modest: bool) -> SizeBudget {
        let within = |bytes: u64| bytes.saturating_sub(state.segment_bytes);
        let credit_bytes = sizes::exact(self.credit_bytes).unwrap_or(self.credit_bytes);
        let total_left = self.total.limit_bytes().saturating_sub(self.total.used_bytes());
        SizeBudget {
            ahead_bytes: if is_modest { 0 } else { within(credit_bytes) },
            need_bytes: within(credit_bytes.saturating_mul(2)).min(total_left),
        }
    }

    fn out_of_credit(&self, state: &LedgerState, len_bytes: u64) -> SegmentError {
        SegmentError::Credit {
            len_bytes,
            held_bytes: state.held_bytes,
            credit_bytes: self.credit_bytes,
        }
    }

    fn out_of_memory(&self, state: &LedgerState, len_bytes: u64) -> SegmentError {
        let (used_bytes, limit_bytes) = (self.total.used_bytes(), self.total.limit_bytes());
        let needed = sizes::exact(len_bytes).unwrap_or(u64::MAX);
        if needed > limit_bytes.saturating_sub(used_bytes) {
            SegmentError::Total { len_bytes, used_bytes, limit_bytes }
        } else {
            self.out_of_credit(state, len_bytes)
        }
    }
}

impl Announcement {
    /// The descriptor to send with the message, if the backend has one.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.segment.descriptor()
    }
}

/// The outcome of an attempt to reserve a slot.
enum Attempt {
    Reserved(Slot),
    /// Another request has a segment made, which may have room for this one too.
    Growing,
    /// Run this where blocking is allowed.
    Grow(Growth),
    /// Something has to be freed first.
    Full(SegmentError),
}
