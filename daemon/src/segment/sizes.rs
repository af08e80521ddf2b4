//! The size of the next segment of a pool. Pure.

use crate::segment::allocation::GRANULE_BYTES;
use crate::segment::spares::SPARE_LEN_BYTES;

const MIB: u64 = 1 << 20;

/// The usual sizes. A busy pool uses larger and larger ones, so that it has few segments and few
/// descriptors.
const LADDER: [u64; 4] = [SPARE_LEN_BYTES, 16 * MIB, 64 * MIB, 256 * MIB];

/// How large one more segment may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct SizeBudget {
    /// The limit for a segment that is larger than needed.
    pub(super) ahead_bytes: u64,
    /// The limit for a segment of just the needed size.
    pub(super) need_bytes: u64,
}

/// The length of a new segment for a slot of `needed` bytes, or `None` if the budget is too small.
///
/// `above` is the size that the pool has outgrown. The next usual size above it is chosen, or a
/// smaller one if the budget requires it, and in the end just the needed size.
pub(super) fn choose(needed: u64, above: u64, budget: SizeBudget) -> Option<u64> {
    let ahead = budget.ahead_bytes.min(budget.need_bytes);
    let wanted = LADDER.into_iter().find(|size| *size > above).unwrap_or(LADDER[3]);
    let usual = LADDER
        .into_iter()
        .rev()
        .filter(|size| *size >= needed && *size <= ahead)
        .min_by_key(|size| size.abs_diff(wanted.max(needed)));
    usual.or_else(|| exact(needed).filter(|size| *size <= budget.need_bytes))
}

/// The length of the smallest segment for `needed` bytes; `None` if it exceeds `u64`.
pub(super) fn exact(needed: u64) -> Option<u64> {
    needed.max(1).checked_next_multiple_of(GRANULE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: SizeBudget = SizeBudget { ahead_bytes: u64::MAX, need_bytes: u64::MAX };

    #[test]
    fn a_pool_climbs_the_ladder() {
        assert_eq!(choose(1, 0, WIDE), Some(4 * MIB));
        assert_eq!(choose(5 * MIB, 0, WIDE), Some(16 * MIB));
        assert_eq!(choose(1, 4 * MIB, WIDE), Some(16 * MIB));
        assert_eq!(choose(1, 16 * MIB, WIDE), Some(64 * MIB));
        assert_eq!(choose(1, 256 * MIB, WIDE), Some(256 * MIB));
        assert_eq!(choose(65 * MIB, 4 * MIB, WIDE), Some(256 * MIB));
    }

    #[test]
    fn a_smaller_budget_means_a_smaller_segment_down_to_the_need() {
        let budget = |ahead_bytes, need_bytes| SizeBudget { ahead_bytes, need_bytes };
        assert_eq!(choose(MIB, 64 * MIB, budget(100 * MIB, u64::MAX)), Some(64 * MIB));
        assert_eq!(choose(MIB, 64 * MIB, budget(20 * MIB, u64::MAX)), Some(16 * MIB));
        assert_eq!(choose(MIB, 64 * MIB, budget(u64::MAX, 20 * MIB)), Some(16 * MIB));
        assert_eq!(choose(MIB + 1, 0, budget(3 * MIB, 9 * MIB)), Some(MIB + GRANULE_BYTES));
        assert_eq!(choose(MIB, 0, budget(0, MIB)), Some(MIB));
        assert_eq!(choose(MIB + 1, 0, budget(0, MIB)), None);
    }

    #[test]
    fn a_result_beyond_the_ladder_gets_its_own_segment() {
        assert_eq!(choose(300 * MIB + 1, 4 * MIB, WIDE), Some(300 * MIB + GRANULE_BYTES));
        assert_eq!(choose(u64::MAX, 0, WIDE), None);
    }
}
