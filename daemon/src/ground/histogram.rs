//! How long something took, as percentiles.

use crate::ground::sync::lock;
use hdrhistogram::Histogram;
use std::sync::Mutex;
use std::time::Duration;

/// Percentiles are exact to two digits, so that a histogram takes a few kilobytes.
const DIGITS: u8 = 2;

/// A longer time counts as this long.
const LONGEST_US: u64 = 3_600_000_000;

/// A histogram of times that any thread may record into.
#[derive(Debug)]
pub(crate) struct TimeHistogram {
    histogram: Mutex<Histogram<u64>>,
}

impl Default for TimeHistogram {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_US, DIGITS)
            .expect("the bounds are far apart, and the digits are few");
        Self { histogram: Mutex::new(histogram) }
    }
}

impl TimeHistogram {
    /// Records a time.
    pub(crate) fn record(&self, time: Duration) {
        self.record_many(time, 1);
    }

    /// Records the same time `count` times.
    pub(crate) fn record_many(&self, time: Duration, count: u64) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).clamp(1, LONGEST_US);
        lock(&self.histogram).saturating_record_n(us, count);
    }

    /// How many times were recorded.
    #[must_use]
    pub(crate) fn count(&self) -> u64 {
        lock(&self.histogram).len()
    }

    /// A quantile (from 0 to 1) in microseconds; 0 if nothing was recorded.
    #[must_use]
    pub(crate) fn quantile_us(&self, quantile: f64) -> u64 {
        lock(&self.histogram).value_at_quantile(quantile)
    }

    /// The longest time in microseconds; 0 if nothing was recorded.
    #[must_use]
    pub(crate) fn max_us(&self) -> u64 {
        lock(&self.histogram).max()
    }
}
