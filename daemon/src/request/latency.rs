//! How long requests take, by kind.

use crate::ground::histogram::TimeHistogram;
use emberd_protocol::{LatencyStatus, Request};
use std::time::Duration;

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

/// The times of each kind of request.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    of: [TimeHistogram; Kind::ALL.len()],
}

impl Latencies {
    /// Counts a request that was answered.
    pub(crate) fn note(&self, kind: Kind, time: Duration) {
        self.of[kind as usize].record(time);
    }

    /// The kinds that there were.
    #[must_use]
    pub(crate) fn told(&self) -> Vec<LatencyStatus> {
        let all = Kind::ALL.iter().map(|kind| status_of(*kind, &self.of[*kind as usize]));
        all.filter(|latency| latency.count > 0).collect()
    }
}

fn status_of(kind: Kind, times: &TimeHistogram) -> LatencyStatus {
    LatencyStatus {
        kind: kind.as_str().into(),
        count: times.count(),
        p50_us: times.quantile_us(0.5),
        p90_us: times.quantile_us(0.9),
        p99_us: times.quantile_us(0.99),
        max_us: times.max_us(),
    }
}
