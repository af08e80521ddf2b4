//! How long requests take, by kind.

use crate::ground::histogram::TimeHistogram;
use emberd_protocol::{LatencyStatus, Request};
use std::time::Duration;

/// The times of each kind of request.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    by_kind: [TimeHistogram; RequestKind::ALL.len()],
}

/// What kind of request it is, for its latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestKind {
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

impl Latencies {
    /// Counts a request that was answered.
    pub(crate) fn note(&self, kind: RequestKind, time: Duration) {
        self.by_kind[kind as usize].record(time);
    }

    /// The kinds that were asked for.
    #[must_use]
    pub(crate) fn status(&self) -> Vec<LatencyStatus> {
        let all = RequestKind::ALL.iter().map(|kind| status(*kind, &self.by_kind[*kind as usize]));
        all.filter(|latency| latency.count > 0).collect()
    }
}

impl RequestKind {
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
            Request::Ping
            | Request::AvailableModels
            | Request::ModelConfig { .. }
            | Request::Preload { .. }
            | Request::Unload { .. }
            | Request::CleanupUnusedModels
            | Request::ClearEmbeddingCache
            | Request::Reload
            | Request::Why { .. }
            | Request::Plan { .. } => Self::Other,
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

fn status(kind: RequestKind, times: &TimeHistogram) -> LatencyStatus {
    LatencyStatus {
        kind: kind.as_str().into(),
        count: times.count(),
        p50_us: times.quantile_us(0.5),
        p90_us: times.quantile_us(0.9),
        p99_us: times.quantile_us(0.99),
        max_us: times.max_us(),
    }
}
