//! The slots whose rows the program still reads.

use super::Connection;
use crate::error::ProtocolError;
use crate::results::embeddings::SlotOwner;
use crate::sync::lock;
use emberd_protocol::{Frame, FrameKind, Free, SegmentId, SlotRef};
use std::collections::BTreeMap;

/// The end of each live slot, by its segment and its offset.
#[derive(Debug, Default)]
pub(super) struct LiveSlots(BTreeMap<(SegmentId, u64), u64>);

impl LiveSlots {
    /// Adds a slot, which lies within its segment, unless it overlaps another live slot.
    pub(super) fn insert(&mut self, slot: &SlotRef) -> Result<(), ProtocolError> {
        let end = slot.offset + slot.len_bytes; // no overflow: it lies within the segment
        let overlaps = self
            .0
            .range((slot.segment, 0)..(slot.segment, end))
            .next_back()
            .is_some_and(|(_, other_end)| *other_end > slot.offset);
        if overlaps {
            return Err(ProtocolError::Slot("the slot overlaps rows that are still held"));
        }
        self.0.insert((slot.segment, slot.offset), end);
        Ok(())
    }

    /// Whether a segment has a live slot.
    pub(super) fn has_any_in(&self, segment: SegmentId) -> bool {
        self.0.range((segment, 0)..=(segment, u64::MAX)).next().is_some()
    }
}

impl SlotOwner for Connection {
    fn free(&self, slot: SlotRef) {
        if !self.is_ours() {
            return;
        }
        lock(&self.live_slots).0.remove(&(slot.segment, slot.offset));
        if let Ok(frame) = Frame::message(FrameKind::Free, 0, &Free { slots: vec![slot] }) {
            self.send_later(&frame);
        }
    }
}
