//! The latest decisions about each model, for `emberd why`.

use emberd_protocol::{Decision, ModelId};
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// Decisions kept for each model.
const KEPT: usize = 16;

/// The latest decisions about each model.
#[derive(Debug, Default)]
pub(super) struct Journal {
    decisions: BTreeMap<ModelId, VecDeque<(Instant, Decision)>>,
}

impl Journal {
    /// Keeps a decision. If it equals the last one, only the time is updated.
    pub(super) fn note(&mut self, decision: Decision, now: Instant) {
        let kept = self.decisions.entry(decision.model.clone()).or_default();
        if kept.front().is_some_and(|(_, last)| *last == decision) {
            kept.pop_front();
        }
        kept.push_front((now, decision));
        kept.truncate(KEPT);
    }

    /// The decisions about a model, the newest first.
    pub(super) fn of(&self, model: &ModelId, now: Instant) -> Vec<Decision> {
        let aged = |(then, decision): &(Instant, Decision)| Decision {
            age_ms: u64::try_from(now.saturating_duration_since(*then).as_millis())
                .unwrap_or(u64::MAX),
            ..decision.clone()
        };
        self.decisions.get(model).into_iter().flatten().map(aged).collect()
    }
}
