//! What waits for the writer.

use crate::cache::clear_error::ClearError;
use crate::cache::store::Record;
use crate::ground::sync::lock;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How long the first row of a transaction waits for others.
const GATHER: Duration = Duration::from_millis(100);

/// Between the cache, which adds to it, and the writer.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) state: Mutex<InboxState>,
    /// Notified when there is something to do.
    pub(super) filled: Condvar,
    /// Notified when the writer is done with it.
    pub(super) settled: Condvar,
}

/// The content of the inbox, and how far the writer is.
#[derive(Debug)]
pub(super) struct InboxState {
    pub(super) records: Vec<Record>,
    pub(super) waiting_bytes: usize,
    /// The file is to be emptied before `records` are written.
    pub(super) clear: bool,
    /// The result of the last `clear`; `None` until it is done.
    pub(super) cleared: Option<Result<(), ClearError>>,
    pub(super) max_entries: usize,
    pub(super) ttl: Duration,
    /// Rows that are too old at this time are to be dropped.
    pub(super) purge: Option<SystemTime>,
    pub(super) stop: bool,
    /// A caller waits, so the writer does not gather rows first.
    pub(super) hurry: bool,
    pub(super) is_busy: bool,
    pub(super) has_ended: bool,
    pub(super) stats: PersistStats,
}

/// One round of the writer's work.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) records: Vec<Record>,
    pub(super) clear: bool,
    pub(super) purge: Option<SystemTime>,
    pub(super) max_entries: usize,
    pub(super) ttl: Duration,
}

/// The counters of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PersistStats {
    /// Rows in the file.
    pub(crate) entries: usize,
    /// Rows that were not written.
    pub(crate) skipped: u64,
    /// Why the file could not be used, for people.
    pub(crate) error: Option<String>,
}

impl Inbox {
    /// Nothing to do yet, but the file is still to be read.
    pub(super) fn new(max_entries: usize, ttl: Duration) -> Self {
        let state = InboxState {
            records: Vec::new(),
            waiting_bytes: 0,
            clear: false,
            cleared: None,
            max_entries,
            ttl,
            purge: None,
            stop: false,
            hurry: false,
            is_busy: true,
            has_ended: false,
            stats: PersistStats::default(),
        };
        Self { state: Mutex::new(state), filled: Condvar::new(), settled: Condvar::new() }
    }

    /// Waits for work; `None` at the end. Called by the writer when it has nothing left to do.
    pub(super) fn next(&self) -> Option<Round> {
        let mut state = lock(&self.state);
        state.is_busy = false;
        self.settled.notify_all();
        let is_idle = |state: &mut InboxState| !state.has_work() && !state.stop;
        let waited = self.filled.wait_while(state, is_idle);
        state = waited.unwrap_or_else(PoisonError::into_inner);
        // Rows arrive in large numbers, and a transaction costs the same for one row or for many.
        let gathers = |state: &mut InboxState| !state.stop && !state.hurry && !state.clear;
        let waited = self.filled.wait_timeout_while(state, GATHER, gathers);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if !state.has_work() {
            return None;
        }
        state.is_busy = true;
        state.waiting_bytes = 0;
        Some(Round {
            records: std::mem::take(&mut state.records),
            clear: std::mem::take(&mut state.clear),
            purge: state.purge.take(),
            max_entries: state.max_entries,
            ttl: state.ttl,
        })
    }
}

impl InboxState {
    /// Whether the writer has something to do.
    pub(super) fn has_work(&self) -> bool {
        self.clear || self.purge.is_some() || !self.records.is_empty()
    }
}
