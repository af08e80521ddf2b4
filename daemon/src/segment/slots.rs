//! Which parts of one segment are free, and who holds the others. Pure.

#[cfg(test)]
mod tests;

use emberd_protocol::SLOT_ALIGNMENT;
use std::collections::BTreeMap;

/// Who holds a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// The daemon, which writes it or is about to.
    Daemon,
    /// The client, which reads it.
    Client,
}

/// What identifies a slot in its segment. A generation is used once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SlotKey {
    pub(super) offset: u64,
    pub(super) len_bytes: u64,
    pub(super) generation: u64,
}

/// The slots of one segment. Allocation is first fit; adjacent free runs are merged.
#[derive(Debug)]
pub(super) struct Slots {
    /// The length of each free run, by offset. No run is empty, and no two are adjacent.
    free: BTreeMap<u64, u64>,
    /// By offset.
    used: BTreeMap<u64, UsedSlot>,
}

impl Slots {
    /// One free run of `len_bytes`, a multiple of [`SLOT_ALIGNMENT`].
    pub(super) fn new(len_bytes: u64) -> Self {
        debug_assert_eq!(len_bytes % SLOT_ALIGNMENT, 0, "a segment is whole slots");
        Self { free: BTreeMap::from([(0, len_bytes)]), used: BTreeMap::new() }
    }

    /// Takes a slot for the daemon in the first free run that is long enough. `generation` must not
    /// have been used before.
    pub(super) fn take(&mut self, len_bytes: u64, generation: u64) -> Option<SlotKey> {
        let needed = footprint_bytes(len_bytes)?;
        let (offset, run) = self.free.iter().find(|(_, run)| **run >= needed)?;
        let (offset, run) = (*offset, *run);
        self.free.remove(&offset);
        if run > needed {
            self.free.insert(offset + needed, run - needed);
        }
        let key = SlotKey { offset, len_bytes, generation };
        self.used.insert(offset, UsedSlot { key, holder: Holder::Daemon });
        Some(key)
    }

    /// A slot of the daemon becomes the client's. `false` if the daemon does not hold it.
    pub(super) fn hand_over(&mut self, key: SlotKey) -> bool {
        match self.used.get_mut(&key.offset) {
            Some(used) if used.key == key && used.holder == Holder::Daemon => {
                used.holder = Holder::Client;
                true
            }
            _ => false,
        }
    }

    /// Frees a slot, and returns the bytes that it occupied. `None` if `holder` does not hold it.
    pub(super) fn free(&mut self, key: SlotKey, holder: Holder) -> Option<u64> {
        let used = self.used.get(&key.offset)?;
        if used.key != key || used.holder != holder {
            return None;
        }
        self.used.remove(&key.offset);
        let freed = footprint_bytes(key.len_bytes)?;
        let (mut start, mut end) = (key.offset, key.offset + freed);
        if let Some((before, len)) = self.free.range(..start).next_back()
            && before + len == start
        {
            start = *before;
        }
        if let Some(len) = self.free.remove(&end) {
            end += len;
        }
        self.free.insert(start, end - start);
        Some(freed)
    }

    /// Whether no slot is held.
    pub(super) fn is_free(&self) -> bool {
        self.used.is_empty()
    }
}

/// Bytes that a slot occupies; `None` if they exceed any segment.
pub(super) fn footprint_bytes(len_bytes: u64) -> Option<u64> {
    len_bytes.max(1).checked_next_multiple_of(SLOT_ALIGNMENT)
}

#[derive(Debug)]
struct UsedSlot {
    key: SlotKey,
    holder: Holder,
}
