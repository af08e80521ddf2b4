//! The thread that owns the file.

use crate::cache::clear_error::ClearError;
use crate::cache::clock::Clock;
use crate::cache::memory::Memory;
use crate::cache::persist::inbox::{Inbox, Round};
use crate::cache::store::{Damage, Record, Store, StoreError, set_aside};
use crate::ground::error_chain::chain;
use crate::ground::sync::lock;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// How long the file is left alone after the system refused an operation.
const RETRY: Duration = Duration::from_secs(30);

/// After this many damaged files nothing more is persisted: otherwise they would fill the disk.
const MAX_DAMAGED: usize = 3;

/// Reads the file once, and then writes what the inbox holds.
pub(super) struct FileWriter {
    path: PathBuf,
    inbox: Arc<Inbox>,
    memory: Arc<Mutex<Memory>>,
    /// Of the memory when the writer started: after a clear no row is read back into it.
    generation: u64,
    clock: Clock,
    store: Option<Store>,
    /// When the system refused an operation; the file is left alone for a while.
    refused_at: Option<Instant>,
    damaged: usize,
    /// The file was removed while it was open; reported until the cache is cleared.
    was_removed: bool,
    has_read: bool,
    /// Whether the file is to be emptied as soon as it can be.
    clears: bool,
}

impl FileWriter {
    /// A writer that has not opened its file yet.
    pub(super) fn new(
        path: PathBuf,
        inbox: &Arc<Inbox>,
        memory: &Arc<Mutex<Memory>>,
        clock: Clock,
    ) -> Self {
        Self {
            path,
            inbox: Arc::clone(inbox),
            generation: lock(memory).generation(),
            memory: Arc::clone(memory),
            clock,
            store: None,
            refused_at: None,
            damaged: 0,
            was_removed: false,
            has_read: false,
            clears: false,
        }
    }

    /// Works until the inbox is stopped and empty.
    pub(super) fn run(mut self) {
        let (max_entries, ttl) = {
            let state = lock(&self.inbox.state);
            (state.max_entries, state.ttl)
        };
        // Rows that are too old or too many are dropped first.
        let purge = Some(self.clock.wall_at_start());
        let mut round = Some(Round { max_entries, ttl, purge, ..Round::default() });
        while let Some(work) = round {
            self.work(&work);
            if work.clear {
                let mut state = lock(&self.inbox.state);
                let error = state.stats.error.clone().filter(|_| self.clears);
                let cleared = error.map_or(Ok(()), |report| Err(ClearError::Unusable { report }));
                state.cleared = Some(cleared);
            }
            round = self.inbox.next();
        }
        // Closed before the notification: the receiver may open the file again.
        self.store = None;
        lock(&self.inbox.state).has_ended = true;
        self.inbox.settled.notify_all();
    }

    fn work(&mut self, round: &Round) {
        let was_refused = self.refused_at.is_some_and(|at| at.elapsed() < RETRY);
        // A request to clear the cache does not wait for the next attempt.
        if (was_refused && !round.clear) || self.damaged >= MAX_DAMAGED {
            lock(&self.inbox.state).stats.skipped += round.records.len() as u64;
            return;
        }
        let mut result = self.attempt(round);
        if let Err(StoreError::Damaged(_) | StoreError::Removed) = result {
            self.give_up(&result, round);
            if self.damaged >= MAX_DAMAGED {
                return;
            }
            result = self.attempt(round);
        }
        self.give_up(&result, round);
    }

    /// A panic of the database counts as damage: an intact file does not cause it.
    fn attempt(&mut self, round: &Round) -> Result<(), StoreError> {
        let result = catch_unwind(AssertUnwindSafe(|| self.carry_out(round)));
        result.unwrap_or_else(|_| Err(StoreError::Damaged(Damage::Panic)))
    }

    fn carry_out(&mut self, round: &Round) -> Result<(), StoreError> {
        self.clears |= round.clear;
        let mut store = match self.store.take() {
            Some(store) if store.is_at(&self.path) || self.clears => store,
            Some(_) => return Err(StoreError::Removed),
            None => Store::open(&self.path)?,
        };
        if self.clears {
            drop(store);
            // Removed, because free pages of the file would still hold the rows.
            remove(&self.path)?;
            store = Store::open(&self.path)?;
            self.has_read = true;
        }
        if !self.has_read {
            self.read(&store)?;
            self.has_read = true;
        }
        let newest = round.records.iter().map(|record| record.born).max();
        let oldest = newest.max(round.purge).and_then(|now| now.checked_sub(round.ttl));
        store.write(&round.records, round.max_entries, oldest.unwrap_or(SystemTime::UNIX_EPOCH))?;
        let mut state = lock(&self.inbox.state);
        state.stats.entries = store.len();
        // A damaged or removed file is reported until the cache is cleared.
        if (self.damaged == 0 && !self.was_removed) || self.clears {
            self.was_removed = false;
            state.stats.error = None;
        }
        drop(state);
        self.clears = false;
        self.refused_at = None;
        self.store = Some(store);
        Ok(())
    }

    fn read(&self, store: &Store) -> Result<(), StoreError> {
        store.read(|Record { key, row, born }| {
            if let Some(born) = self.clock.instant_of(born) {
                let now = self.clock.start();
                let mut memory = lock(&self.memory);
                memory.insert_oldest(self.generation, key, row, born, now);
            }
        })
    }

    /// Reports why the file could not be used, and sets a damaged one aside.
    fn give_up(&mut self, result: &Result<(), StoreError>, round: &Round) {
        let Err(error) = result else { return };
        // Closing the database may meet the damage again, and panic.
        let store = self.store.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(store)));
        let path = self.path.display();
        let mut report = format!("{path}: {}", chain(error));
        if let StoreError::Damaged(_) = error {
            self.damaged += 1;
            // Rows that were read before the damage was found are intact, and stay.
            self.has_read = true;
            report = match self.set_aside() {
                Ok(aside) => format!(
                    "{report}; it was set aside as {}, and a new one is created",
                    aside.display()
                ),
                Err(error) => {
                    self.refused_at = Some(Instant::now());
                    format!(
                        "{report}; it cannot be set aside ({error}): remove it, or set embedding_cache.file to another path"
                    )
                }
            };
            if self.damaged >= MAX_DAMAGED {
                report.push_str(
                    "; too many files were damaged, and nothing more is persisted: check the disk",
                );
            }
        } else if let StoreError::Removed = error {
            self.was_removed = true;
        } else {
            self.refused_at = Some(Instant::now());
        }
        tracing::error!(code = "CACHE_ERROR", "{report}");
        let mut state = lock(&self.inbox.state);
        state.stats.entries = 0;
        if self.refused_at.is_some() || self.damaged >= MAX_DAMAGED {
            state.stats.skipped += round.records.len() as u64;
        }
        state.stats.error = Some(report);
    }

    fn set_aside(&self) -> std::io::Result<PathBuf> {
        let path: &Path = &self.path;
        set_aside(path, SystemTime::now())
    }
}

/// Removes a file if it exists.
fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
