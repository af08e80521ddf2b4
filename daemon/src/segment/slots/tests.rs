//! First fit, ownership, and random orders of taking and freeing.

use crate::segment::slots::{Holder, SlotKey, Slots, footprint_bytes};
use emberd_protocol::SLOT_ALIGNMENT;
use proptest::prelude::*;
use std::collections::BTreeMap;

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
fn an_empty_slot_gets_an_offset_and_a_huge_one_is_refused() {
    let mut slots = Slots::new(LEN);
    let empty = slots.take(0, 1).unwrap();
    assert_ne!(slots.take(0, 2).unwrap().offset, empty.offset);
    assert_eq!(slots.take(u64::MAX, 3), None);
    assert_eq!(slots.take(LEN, 4), None);
}

#[test]
fn a_slot_is_freed_once_by_its_holder_and_in_its_own_generation() {
    let mut slots = Slots::new(LEN);
    let key = slots.take(100, 7).unwrap();
    assert_eq!(slots.free(key, Holder::Client), None, "not yet given");
    assert!(slots.hand_over(key));
    assert!(!slots.hand_over(key), "given already");
    assert_eq!(slots.free(key, Holder::Daemon), None, "given away");
    assert_eq!(slots.free(SlotKey { generation: 6, ..key }, Holder::Client), None);
    assert_eq!(slots.free(SlotKey { len_bytes: 101, ..key }, Holder::Client), None);
    assert_eq!(slots.free(SlotKey { offset: 64, ..key }, Holder::Client), None);
    assert_eq!(slots.free(key, Holder::Client), Some(128));
    assert_eq!(slots.free(key, Holder::Client), None, "twice");
    let next = slots.take(100, 8).unwrap();
    assert_eq!(next.offset, key.offset);
    assert_eq!(slots.free(key, Holder::Daemon), None, "late");
}

proptest! {
    /// Any order of taking and freeing: no overlap, no byte lost, one run at the end.
    #[test]
    fn slots_never_overlap_and_free_space_is_merged(
        steps in prop::collection::vec((any::<bool>(), 0u64..1200, any::<prop::sample::Index>()), 1..200)
    ) {
        let mut slots = Slots::new(LEN);
        let mut taken: Vec<SlotKey> = Vec::new();
        for (generation, (take, len_bytes, which)) in steps.into_iter().enumerate() {
            if take || taken.is_empty() {
                if let Some(key) = slots.take(len_bytes, generation as u64) {
                    prop_assert_eq!(key.offset % SLOT_ALIGNMENT, 0);
                    prop_assert!(key.offset + key.len_bytes <= LEN);
                    for other in &taken {
                        prop_assert!(
                            key.offset + footprint_bytes(key.len_bytes).unwrap() <= other.offset
                                || other.offset + footprint_bytes(other.len_bytes).unwrap() <= key.offset
                        );
                    }
                    taken.push(key);
                } else {
                    // First fit fails only where no run is long enough.
                    let longest = slots.free.values().max().copied().unwrap_or(0);
                    prop_assert!(longest < footprint_bytes(len_bytes).unwrap());
                }
            } else {
                let key = taken.swap_remove(which.index(taken.len()));
                prop_assert!(slots.free(key, Holder::Daemon).is_some());
            }
            let used: u64 = taken.iter().map(|c| footprint_bytes(c.len_bytes).unwrap()).sum();
            prop_assert_eq!(used + slots.free.values().sum::<u64>(), LEN);
            let ends = slots.free.iter().map(|(offset, len)| offset + len);
            let starts = slots.free.keys().skip(1);
            prop_assert!(ends.zip(starts).all(|(end, start)| end < *start), "runs touch");
        }
        for key in taken {
            prop_assert!(slots.free(key, Holder::Daemon).is_some());
        }
        prop_assert!(slots.is_free());
        prop_assert_eq!(slots.free, BTreeMap::from([(0, LEN)]));
    }
}
