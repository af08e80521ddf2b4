//! When a load that failed is tried again.

use crate::models::load_failure::LoadFailure;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After a failed load, requests fail with its error for this long before one tries again; after
/// each further failure, twice as long.
pub(super) const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The longest delay that repeated failures cause.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// The longest delay that a hub can ask for.
const LONGEST_HUB_DELAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A load that failed.
#[derive(Debug, Clone)]
pub struct FailedLoad {
    /// The failure of the last load.
    pub cause: Arc<LoadFailure>,
    /// From when on a request tries again.
    pub retry_at: Instant,
    attempts: u32,
}

impl FailedLoad {
    /// A failure now, after an earlier one if there was any.
    pub(super) fn after(earlier: Option<&Self>, cause: Arc<LoadFailure>, now: Instant) -> Self {
        let attempts = earlier.map_or(0, |failed| failed.attempts) + 1;
        let backoff = FIRST_RETRY.saturating_mul(1 << (attempts - 1).min(16)).min(LAST_RETRY);
        let asked_by_hub = cause.retry_after().unwrap_or_default().min(LONGEST_HUB_DELAY);
        Self { cause, retry_at: now + backoff.max(asked_by_hub), attempts }
    }

    /// Lets the next request try again at once, unless a hub asked for a delay.
    pub(super) fn retry_now(&mut self, now: Instant) {
        if !self.is_asked_by_hub() {
            self.retry_at = now;
        }
    }

    /// The time until the next attempt, if it is not due yet.
    pub(super) fn retry_in(&self, now: Instant) -> Option<Duration> {
        self.retry_at.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }

    /// Whether a hub asked for the delay.
    pub(super) fn is_asked_by_hub(&self) -> bool {
        self.cause.retry_after().is_some()
    }
}
