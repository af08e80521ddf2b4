//! Durations as whole numbers, which is how messages, logs and files carry them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Whole milliseconds; the largest number where a duration has more.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970; 0 for an earlier time.
pub(crate) fn unix_millis(time: SystemTime) -> u64 {
    millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}
