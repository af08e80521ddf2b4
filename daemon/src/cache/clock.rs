//! Two clocks side by side: one that never goes back, and one that other lives of the daemon know.

use std::time::{Duration, Instant, SystemTime};

/// What both clocks showed when the cache was opened.
///
/// From then on the time of day is told from the first one alone, so that setting the clock makes
/// no entry younger while the daemon runs.
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

    /// The time of day then.
    pub(super) fn wall_at_start(&self) -> SystemTime {
        self.wall
    }

    /// The time of day at a moment since.
    pub(super) fn wall(&self, at: Instant) -> SystemTime {
        self.wall + at.saturating_duration_since(self.start)
    }

    /// The moment of a time of day before the start. `None` for a later one (the clock was set
    /// back, and the age is unknown), and for one that this machine's first clock cannot show.
    pub(super) fn instant_of(&self, wall: SystemTime) -> Option<Instant> {
        let age: Duration = self.wall.duration_since(wall).ok()?;
        self.start.checked_sub(age)
    }
}
