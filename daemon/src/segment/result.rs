//! What a finished result is.

use crate::segment::error::SegmentError;
use crate::segment::ledger::Ledger;
use crate::segment::slots::Holder;
use emberd_protocol::SlotRef;
use std::sync::Weak;

/// A finished result.
#[derive(Debug)]
pub enum Finished {
    /// The values, as they follow the message.
    Inline(Vec<u8>),
    /// A slot that belongs to the client once the client knows it.
    Slot(FinishedSlot),
    /// The rows could not be written to the memory that the client reads.
    Lost(SegmentError),
}

/// A finished result in shared memory that the client does not know yet. Dropping it unsent frees
/// the slot.
#[derive(Debug)]
pub struct FinishedSlot {
    ledger: Weak<Ledger>,
    slot: SlotRef,
    is_sent: bool,
}

impl FinishedSlot {
    /// `slot` was just handed over to the client.
    pub(super) fn new(ledger: Weak<Ledger>, slot: SlotRef) -> Self {
        Self { ledger, slot, is_sent: false }
    }

    /// How the client finds it.
    #[must_use]
    pub fn slot(&self) -> SlotRef {
        self.slot
    }

    /// The client knows the slot from now on, and frees it.
    pub fn sent(mut self) -> SlotRef {
        self.is_sent = true;
        self.slot
    }
}

impl Drop for FinishedSlot {
    fn drop(&mut self) {
        if !self.is_sent
            && let Some(ledger) = self.ledger.upgrade()
        {
            ledger.release(&self.slot, Holder::Client);
        }
    }
}
