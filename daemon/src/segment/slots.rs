//! Which parts of one segment are free, and who has the others. Pure.

use emberd_protocol::SLOT_ALIGNMENT;
use std::collections::BTreeMap;

/// Who has a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// The daemon: it is being written, or about to be.
    Daemon,
    /// The client: it is being read.
    Client,
}

/// A slot as its holder names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) offset: u64,
    pub(super) len_bytes: u64,
    pub(super) generation: u64,
}

/// The slots of one segment. First fit; free neighbours become one.
#[derive(Debug)]
pub(super) struct Slots {
    /// Offset to length: never empty, never touching each other.
    free: BTreeMap<u64, u64>,
    /// By offset.
    used: BTreeMap<u64, Used>,
}

#[derive(Debug)]
struct Used {
    claim: Claim,
    holder: Holder,
}

impl Slots {
    /// One free run of `len_bytes`, a multiple of [`SLOT_ALIGNMENT`].
    pub(super) fn new(len_bytes: u64) -> Self {
        debug_assert_eq!(len_bytes % SLOT_ALIGNMENT, 0, "a segment is whole slots");
        Self { free: BTreeMap::from([(0, len_bytes)]), used: BTreeMap::new() }
    }

    /// Takes the first run that is long enough, for the daemon. `generation` is one that was
    /// never used before.
    pub(super) fn take(&mut self, len_bytes: u64, generation: u64) -> Option<Claim> {
        let needed = footprint_bytes(len_bytes)?;
        let (offset, run) = self.free.iter().find(|(_, run)| **run >= needed)?;
        let (offset, run) = (*offset, *run);
        self.free.remove(&offset);
        if run > needed {
            self.free.insert(offset + needed, run - needed);
        }
        let claim = Claim { offset, len_bytes, generation };
        self.used.insert(offset, Used { claim, holder: Holder::Daemon });
        Some(claim)
    }

    /// The daemon's slot becomes the client's. `false`: it was not the daemon's.
    pub(super) fn hand_over(&mut self, claim: Claim) -> bool {
        match self.used.get_mut(&claim.offset) {
            Some(used) if used.claim == claim && used.holder == Holder::Daemon => {
                used.holder = Holder::Client;
                true
            }
            _ => false,
        }
    }

    /// Frees a slot that `holder` has; answers the bytes that it took up, or `None` if `holder`
    /// has no such slot (any more, or yet).
    pub(super) fn free(&mut self, claim: Claim, holder: Holder) -> Option<u64> {
        let used = self.used.get(&claim.offset)?;
        if used.claim != claim || used.holder != holder {
            return None;
        }
        self.used.remove(&claim.offset);
        let freed = footprint_bytes(claim.len_bytes)?;
        let (mut start, mut end) = (claim.offset, claim.offset + freed);
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

    /// Whether nobody has any of it.
    pub(super) fn is_free(&self) -> bool {
        self.used.is_empty()
    }
}

/// Bytes that a slot takes up; `None` if no segment could have them.
pub(super) fn footprint_bytes(len_bytes: u64) -> Option<u64> {
    len_bytes.max(1).checked_next_multiple_of(SLOT_ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEN: u64 = 4096;

    #[test]
    fn first_fit_is_aligned_and_fills_gaps_from_the_front() {
        let mut slots = Slots::new(LEN);
        let first = slots.take(65, 1).unwrap();
        let second = slots.take(1, 2).unwrap();
        assert_eq!((first.offset, second.offset), (0, 128));
        assert_eq!(slots.free(first, Holder::Daemon), Some(128));
        assert_eq!(slots.take(129, 3).unwrap().offset, 192);
        assert_eq!(slots.take(128, 4).unwrap().offset, 0);
    }

    #[test]
    fn an_empty_slot_has_a_place_and_a_huge_one_has_none() {
        let mut slots = Slots::new(LEN);
        let empty = slots.take(0, 1).unwrap();
        assert_ne!(slots.take(0, 2).unwrap().offset, empty.offset);
        assert_eq!(slots.take(u64::MAX, 3), None);
        assert_eq!(slots.take(LEN, 4), None);
    }

    #[test]
    fn a_slot_is_freed_once_by_its_holder_and_in_its_own_generation() {
        let mut slots = Slots::new(LEN);
        let claim = slots.take(100, 7).unwrap();
        assert_eq!(slots.free(claim, Holder::Client), None, "not yet given");
        assert!(slots.hand_over(claim));
        assert!(!slots.hand_over(claim), "given already");
        assert_eq!(slots.free(claim, Holder::Daemon), None, "given away");
        assert_eq!(slots.free(Claim { generation: 6, ..claim }, Holder::Client), None);
        assert_eq!(slots.free(Claim { len_bytes: 101, ..claim }, Holder::Client), None);
        assert_eq!(slots.free(Claim { offset: 64, ..claim }, Holder::Client), None);
        assert_eq!(slots.free(claim, Holder::Client), Some(128));
        assert_eq!(slots.free(claim, Holder::Client), None, "twice");
        let next = slots.take(100, 8).unwrap();
        assert_eq!(next.offset, claim.offset);
        assert_eq!(slots.free(claim, Holder::Daemon), None, "late");
    }

    proptest! {
        /// Any order of taking and freeing: no overlap, no byte lost, one run at the end.
        #[test]
        fn slots_never_overlap_and_freed_space_comes_together(
            steps in prop::collection::vec((any::<bool>(), 0u64..1200, any::<prop::sample::Index>()), 1..200)
        ) {
            let mut slots = Slots::new(LEN);
            let mut taken: Vec<Claim> = Vec::new();
            for (generation, (take, len_bytes, which)) in steps.into_iter().enumerate() {
                if take || taken.is_empty() {
                    if let Some(claim) = slots.take(len_bytes, generation as u64) {
                        prop_assert_eq!(claim.offset % SLOT_ALIGNMENT, 0);
                        prop_assert!(claim.offset + claim.len_bytes <= LEN);
                        for other in &taken {
                            prop_assert!(
                                claim.offset + footprint_bytes(claim.len_bytes).unwrap() <= other.offset
                                    || other.offset + footprint_bytes(other.len_bytes).unwrap() <= claim.offset
                            );
                        }
                        taken.push(claim);
                    } else {
                        // First fit fails only where no run is long enough.
                        let longest = slots.free.values().max().copied().unwrap_or(0);
                        prop_assert!(longest < footprint_bytes(len_bytes).unwrap());
                    }
                } else {
                    let claim = taken.swap_remove(which.index(taken.len()));
                    prop_assert!(slots.free(claim, Holder::Daemon).is_some());
                }
                let used: u64 = taken.iter().map(|c| footprint_bytes(c.len_bytes).unwrap()).sum();
                prop_assert_eq!(used + slots.free.values().sum::<u64>(), LEN);
                let ends = slots.free.iter().map(|(offset, len)| offset + len);
                let starts = slots.free.keys().skip(1);
                prop_assert!(ends.zip(starts).all(|(end, start)| end < *start), "runs touch");
            }
            for claim in taken {
                prop_assert!(slots.free(claim, Holder::Daemon).is_some());
            }
            prop_assert!(slots.is_free());
            prop_assert_eq!(slots.free, BTreeMap::from([(0, LEN)]));
        }
    }
}
