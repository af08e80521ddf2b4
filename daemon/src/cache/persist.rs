//! Rows that are written to the file: one thread writes them, and no request waits for it.
//!
//! The thread first reads the whole file, the youngest rows first, into the memory. The file never
//! holds more rows than the memory may, so that afterwards no look-up has a reason to read it:
//! requests never wait for a disk. Until a row is read its text is computed.
//!
//! A damaged file costs only its own rows: it is set aside, and a new one is created. If the system
//! refuses an operation (a full disk, a folder without write permission), the file is tried again
//! later.

mod inbox;
mod writer;

use crate::cache::clear_error::ClearError;
use crate::cache::clock::Clock;
use crate::cache::memory::Memory;
use crate::cache::persist::inbox::{Inbox, InboxState, PersistStats};
use crate::cache::persist::writer::FileWriter;
use crate::cache::store::Record;
use crate::ground::sync::lock;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

/// Bytes of rows that may wait to be written. Rows beyond that are not persisted.
const MAX_WAITING_BYTES: usize = 16 << 20;

/// How long dropping waits for the last rows to be written.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// The writer of the file. Dropping it writes the rows that wait, for a few seconds at most.
#[derive(Debug)]
pub(super) struct Persistence {
    inbox: Arc<Inbox>,
}

impl Persistence {
    /// Starts the writer, which first reads the file into `memory`.
    ///
    /// # Errors
    /// When the system cannot start another thread.
    pub(super) fn start(
        path: PathBuf,
        max_entries: usize,
        ttl: Duration,
        memory: &Arc<Mutex<Memory>>,
        clock: Clock,
    ) -> std::io::Result<Self> {
        let inbox = Arc::new(Inbox::new(max_entries, ttl));
        let writer = FileWriter::new(path, &inbox, memory, clock);
        thread::Builder::new().name("cache".into()).spawn(|| writer.run())?;
        Ok(Self { inbox })
    }

    /// Queues a row to be written, or counts it as skipped if too many wait. Never blocks.
    pub(super) fn offer(&self, record: Record) {
        let mut state = lock(&self.inbox.state);
        let bytes = size_of_val(&*record.row.values) + size_of::<Record>();
        if state.waiting_bytes + bytes > MAX_WAITING_BYTES {
            state.stats.skipped += 1;
            return;
        }
        state.waiting_bytes += bytes;
        state.records.push(record);
        drop(state);
        self.inbox.filled.notify_one();
    }

    /// Empties the file, and blocks until that is done.
    ///
    /// # Errors
    /// Why it was not emptied, or not within `patience`.
    pub(super) fn clear(&self, patience: Duration) -> Result<(), ClearError> {
        let mut state = lock(&self.inbox.state);
        state.records.clear();
        state.waiting_bytes = 0;
        state.clear = true;
        state.cleared = None;
        state.hurry = true;
        self.inbox.filled.notify_one();
        let is_pending = |state: &mut InboxState| state.cleared.is_none();
        let waited = self.inbox.settled.wait_timeout_while(state, patience, is_pending);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.hurry = false;
        state.cleared.take().unwrap_or(Err(ClearError::Late(patience)))
    }

    /// Drops rows that are too old at `now` from the file, soon.
    pub(super) fn purge(&self, now: SystemTime) {
        lock(&self.inbox.state).purge = Some(now);
        self.inbox.filled.notify_one();
    }

    /// Changes the limits; the file follows soon.
    pub(super) fn set_limits(&self, max_entries: usize, ttl: Duration, now: SystemTime) {
        let mut state = lock(&self.inbox.state);
        (state.max_entries, state.ttl, state.purge) = (max_entries, ttl, Some(now));
        drop(state);
        self.inbox.filled.notify_one();
    }

    /// Blocks until every waiting row is written or given up. `false`: that took longer than
    /// `patience`.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let mut state = lock(&self.inbox.state);
        state.hurry = true;
        self.inbox.filled.notify_one();
        let is_busy = |state: &mut InboxState| state.is_busy || state.has_work();
        let waited = self.inbox.settled.wait_timeout_while(state, patience, is_busy);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        state.hurry = false;
        !waited.timed_out()
    }

    /// The counters now.
    pub(super) fn stats(&self) -> PersistStats {
        lock(&self.inbox.state).stats.clone()
    }
}

impl Drop for Persistence {
    fn drop(&mut self) {
        let mut state = lock(&self.inbox.state);
        state.stop = true;
        self.inbox.filled.notify_one();
        let runs = |state: &mut InboxState| !state.has_ended;
        // The thread is not joined: a disk that never answers would keep the program from exiting.
        let _ = self.inbox.settled.wait_timeout_while(state, LAST_WRITE, runs);
    }
}
