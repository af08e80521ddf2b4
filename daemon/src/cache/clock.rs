//! Two clocks side by side: a monotonic one, and the time of day that is valid across restarts.

use std::time::{Duration, Instant, SystemTime};

/// The reading of both clocks when the cache was opened.
///
/// From then on the time of day is derived from the monotonic clock, so that setting the system's
/// clock makes no entry younger while the daemon runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
    wall: SystemTime,
}

impl Clock {
    pub(super) fn new(start: Instant, wall: SystemTime) -> Self {
        Self { start, wall }
    }

    /// When the cache was opened.
    pub(super) fn start(&self) -> Instant {
        self.start
    }

    /// The time of day when the cache was opened.
    pub(super) fn wall_at_start(&self) -> SystemTime {
        self.wall
    }

    /// The time of day at a later moment.
    pub(super) fn wall(&self, at: Instant) -> SystemTime {
        self.wall + at.saturating_duration_since(self.start)
    }

    /// The moment of a time of day before the start. `None` for a later time (the clock was set back,
    /// so the age is unknown), and for a time that the monotonic clock cannot represent.
    pub(super) fn instant_of(&self, wall: SystemTime) -> Option<Instant> {
        let age: Duration = self.wall.duration_since(wall).ok()?;
        self.start.checked_sub(age)
    }
}
