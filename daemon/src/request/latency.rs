//! How long requests take, by kind.

use crate::ground::sync::lock;
use emberd_protocol::{LatencyStatus, Request};
use hdrhistogram::Histogram;
use std::sync::Mutex;
use std::time::Duration;

/// Values are told to two digits: the histogram of a kind takes some kilobytes.
const DIGITS: u8 = 2;

/// Longer ones count as this long.
const LONGEST_US: u64 = 3_600_000_000;

/// What a request is, for its latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Rows for texts.
    Embed,
    /// Scores for pairs.
    Rerank,
    /// Texts made from texts.
    Generate,
    /// Candidates for masks.
    FillMask,
    /// A lease, with the load that it may need.
    Acquire,
    /// The end of a lease.
    Release,
    /// A status.
    Status,
    /// Anything else.
    Other,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Embed,
        Self::Rerank,
        Self::Generate,
        Self::FillMask,
        Self::Acquire,
        Self::Release,
        Self::Status,
        Self::Other,
    ];

    /// The kind of a request.
    #[must_use]
    pub(crate) fn of(request: &Request) -> Self {
        match request {
            Request::Embed(_) => Self::Embed,
            Request::Rerank(_) => Self::Rerank,
            Request::Generate(_) => Self::Generate,
            Request::FillMask(_) => Self::FillMask,
            Request::Acquire { .. } => Self::Acquire,
            Request::Release { .. } => Self::Release,
            Request::Status => Self::Status,
            _ => Self::Other,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::Rerank => "rerank",
            Self::Generate => "generate",
            Self::FillMask => "fill-mask",
            Self::Acquire => "acquire",
            Self::Release => "release",
            Self::Status => "status",
            Self::Other => "other",
        }
    }
}

/// A histogram of times, for many threads.
#[derive(Debug)]
pub(crate) struct Times {
    histogram: Mutex<Histogram<u64>>,
}

impl Default for Times {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_US, DIGITS)
            .expect("the bounds are a power apart, and the digits are few");
        Self { histogram: Mutex::new(histogram) }
    }
}

impl Times {
    /// Counts a time.
    pub(crate) fn note(&self, time: Duration) {
        self.note_many(time, 1);
    }

    /// Counts a time as often as it was met.
    pub(crate) fn note_many(&self, time: Duration, count: u64) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).clamp(1, LONGEST_US);
        lock(&self.histogram).saturating_record_n(us, count);
    }

    /// A quantile in microseconds; 0 where nothing was counted.
    #[must_use]
    pub(crate) fn quantile_us(&self, quantile: f64) -> u64 {
        lock(&self.histogram).value_at_quantile(quantile)
    }

    fn told(&self, kind: Kind) -> LatencyStatus {
        let histogram = lock(&self.histogram);
        LatencyStatus {
            kind: kind.as_str().into(),
            count: histogram.len(),
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            max_us: histogram.max(),
        }
    }
}

/// The times of each kind of request.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    of: [Times; Kind::ALL.len()],
}

impl Latencies {
    /// Counts a request that was answered.
    pub(crate) fn note(&self, kind: Kind, time: Duration) {
        self.of[kind as usize].note(time);
    }

    /// The kinds that there were.
    #[must_use]
    pub(crate) fn told(&self) -> Vec<LatencyStatus> {
        let all = Kind::ALL.iter().map(|kind| self.of[*kind as usize].told(*kind));
        all.filter(|latency| latency.count > 0).collect()
    }
}
