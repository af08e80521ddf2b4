//! Rows on their way to the file: written behind, by one thread, and never waited for.
//!
//! The thread reads the whole file once when it starts, the youngest rows first, and gives them to
//! the memory. The file holds no more rows than the memory may, so that afterwards no look-up has
//! a reason to read it: requests never wait for a disk. Until a row is read its text is computed.
//!
//! Damage costs the file and nothing else: it is set aside, and a new one is begun. Where the
//! system refuses (a full disk, a folder that cannot be written), the file is tried again later.

use crate::cache::clock::Clock;
use crate::cache::memory::Memory;
use crate::cache::store::{Record, Store, StoreError, set_aside};
use crate::ground::sync::lock;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Values that may wait to be written; what comes beyond is not persisted.
const MAX_WAITING_BYTES: usize = 16 << 20;

/// How long the first row of a transaction waits for others.
const GATHER: Duration = Duration::from_millis(100);

/// How long the file is left alone after the system refused something.
const RETRY: Duration = Duration::from_secs(30);

/// After so many damaged files the disk is not trusted any more: else it would fill with them.
const MAX_DAMAGED: usize = 3;

/// How long the end waits for what is still to be written.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// The writer. Dropping it writes what waits, for a few seconds at most.
#[derive(Debug)]
pub(super) struct Persistence {
    inbox: Arc<Inbox>,
}

/// What is told about the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PersistStats {
    pub(super) entries: usize,
    pub(super) skipped: u64,
    pub(super) error: Option<String>,
}

#[derive(Debug)]
struct Inbox {
    state: Mutex<State>,
    /// There is something to do.
    filled: Condvar,
    /// It was done.
    settled: Condvar,
}

#[derive(Debug)]
struct State {
    records: Vec<Record>,
    waiting_bytes: usize,
    /// All that was persisted before is to go, ahead of `records`.
    clear: bool,
    /// How the last of that ended: `None` until it has.
    cleared: Option<Result<(), String>>,
    max_entries: usize,
    ttl: Duration,
    /// Rows that are too old at this time are to go.
    purge: Option<SystemTime>,
    stop: bool,
    /// Whether somebody waits, so that nothing is gathered.
    hurry: bool,
    is_busy: bool,
    has_ended: bool,
    stats: PersistStats,
}

/// One round of the writer's work.
#[derive(Debug, Default)]
struct Round {
    records: Vec<Record>,
    clear: bool,
    purge: Option<SystemTime>,
    max_entries: usize,
    ttl: Duration,
}

impl Persistence {
    /// Starts the writer, which first reads the file into `memory`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(
        path: PathBuf,
        max_entries: usize,
        ttl: Duration,
        memory: &Arc<Mutex<Memory>>,
        clock: Clock,
    ) -> std::io::Result<Self> {
        let state = State {
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
        let inbox = Arc::new(Inbox {
            state: Mutex::new(state),
            filled: Condvar::new(),
            settled: Condvar::new(),
        });
        let writer = Writer {
            path,
            inbox: Arc::clone(&inbox),
            generation: lock(memory).generation(),
            memory: Arc::clone(memory),
            clock,
            store: None,
            refused_at: None,
            damaged: 0,
            was_removed: false,
            has_read: false,
            clears: false,
        };
        thread::Builder::new().name("cache".into()).spawn(|| writer.run())?;
        Ok(Self { inbox })
    }

    /// Takes a row to be written, or counts it as skipped where too many wait. Never blocks.
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
    /// Why it could not be emptied, or was not in time.
    pub(super) fn clear(&self, patience: Duration) -> Result<(), String> {
        let mut state = lock(&self.inbox.state);
        state.records.clear();
        state.waiting_bytes = 0;
        state.clear = true;
        state.cleared = None;
        state.hurry = true;
        self.inbox.filled.notify_one();
        let waits = |state: &mut State| state.cleared.is_none();
        let waited = self.inbox.settled.wait_timeout_while(state, patience, waits);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.hurry = false;
        let late = || Err(format!("its file was not emptied within {patience:?}"));
        state.cleared.take().unwrap_or_else(late)
    }

    /// Drops rows that are too old at `now` from the file, soon.
    pub(super) fn purge(&self, now: SystemTime) {
        lock(&self.inbox.state).purge = Some(now);
        self.inbox.filled.notify_one();
    }

    /// Takes other limits; the file follows soon.
    pub(super) fn set_limits(&self, max_entries: usize, ttl: Duration, now: SystemTime) {
        let mut state = lock(&self.inbox.state);
        (state.max_entries, state.ttl, state.purge) = (max_entries, ttl, Some(now));
        drop(state);
        self.inbox.filled.notify_one();
    }

    /// Blocks until all that waits is written, or was given up. `false`: the time was over before.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let mut state = lock(&self.inbox.state);
        state.hurry = true;
        self.inbox.filled.notify_one();
        let is_busy = |state: &mut State| state.is_busy || state.has_work();
        let waited = self.inbox.settled.wait_timeout_while(state, patience, is_busy);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        state.hurry = false;
        !waited.timed_out()
    }

    pub(super) fn stats(&self) -> PersistStats {
        lock(&self.inbox.state).stats.clone()
    }
}

impl Drop for Persistence {
    fn drop(&mut self) {
        let mut state = lock(&self.inbox.state);
        state.stop = true;
        self.inbox.filled.notify_one();
        let runs = |state: &mut State| !state.has_ended;
        // The thread is not joined: a disk that never answers would keep the program from its end.
        let _ = self.inbox.settled.wait_timeout_while(state, LAST_WRITE, runs);
    }
}

impl State {
    fn has_work(&self) -> bool {
        self.clear || self.purge.is_some() || !self.records.is_empty()
    }
}

struct Writer {
    path: PathBuf,
    inbox: Arc<Inbox>,
    memory: Arc<Mutex<Memory>>,
    /// Of the memory when the writer started: what was dropped since is not read back.
    generation: u64,
    clock: Clock,
    store: Option<Store>,
    /// When the system refused something, and the file was given up for a while.
    refused_at: Option<Instant>,
    damaged: usize,
    /// The file was removed under this process; told until all is cleared.
    was_removed: bool,
    has_read: bool,
    /// Whether the file is to be emptied as soon as it can be.
    clears: bool,
}

impl Writer {
    fn run(mut self) {
        let (max_entries, ttl) = {
            let state = lock(&self.inbox.state);
            (state.max_entries, state.ttl)
        };
        // What is too old, or too much, goes at once.
        let purge = Some(self.clock.wall_at_start());
        let mut round = Some(Round { max_entries, ttl, purge, ..Round::default() });
        while let Some(work) = round {
            self.work(&work);
            if work.clear {
                let mut state = lock(&self.inbox.state);
                let error = state.stats.error.clone().filter(|_| self.clears);
                state.cleared = Some(error.map_or(Ok(()), Err));
            }
            round = self.next();
        }
        // Closed before anybody is told, who may open it again.
        self.store = None;
        lock(&self.inbox.state).has_ended = true;
        self.inbox.settled.notify_all();
    }

    /// Waits for work; `None` at the end.
    fn next(&self) -> Option<Round> {
        let mut state = lock(&self.inbox.state);
        state.is_busy = false;
        self.inbox.settled.notify_all();
        let idle = |state: &mut State| !state.has_work() && !state.stop;
        let waited = self.inbox.filled.wait_while(state, idle);
        state = waited.unwrap_or_else(PoisonError::into_inner);
        // Rows come in numbers, and a transaction costs what it costs for one or for many.
        let gathers = |state: &mut State| !state.stop && !state.hurry && !state.clear;
        let waited = self.inbox.filled.wait_timeout_while(state, GATHER, gathers);
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

    fn work(&mut self, round: &Round) {
        let was_refused = self.refused_at.is_some_and(|at| at.elapsed() < RETRY);
        // Whoever wants the rows gone does not wait for the next try.
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

    /// A panic of the database is damage: it finds the file other than it can be.
    fn attempt(&mut self, round: &Round) -> Result<(), StoreError> {
        let result = catch_unwind(AssertUnwindSafe(|| self.carry_out(round)));
        result.unwrap_or_else(|_| Err(StoreError::Damaged("the database panicked".into())))
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
            // The file's free pages would keep the rows.
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
        // A damaged or lost file is told of until somebody has cleared it all.
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

    /// Notes why the file could not be used, and puts a damaged one out of the way.
    fn give_up(&mut self, result: &Result<(), StoreError>, round: &Round) {
        let Err(error) = result else { return };
        // Its end may find the damage again.
        let store = self.store.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(store)));
        let path = self.path.display();
        let mut told = format!("{path}: {}", crate::ground::error_chain::chain(error));
        if let StoreError::Damaged(_) = error {
            self.damaged += 1;
            // Rows that were read before the damage was met are whole, and stay.
            self.has_read = true;
            told = match self.set_aside() {
                Ok(aside) => format!(
                    "{told}; it was set aside as {}, and a new one is begun",
                    aside.display()
                ),
                Err(error) => {
                    self.refused_at = Some(Instant::now());
                    format!(
                        "{told}; it cannot be set aside ({error}): remove it, or set embedding_cache.file to another place"
                    )
                }
            };
            if self.damaged >= MAX_DAMAGED {
                told.push_str(
                    "; too many were damaged, and nothing more is persisted: check the disk",
                );
            }
        } else if let StoreError::Removed = error {
            self.was_removed = true;
        } else {
            self.refused_at = Some(Instant::now());
        }
        tracing::error!(code = "CACHE_ERROR", "{told}");
        let mut state = lock(&self.inbox.state);
        state.stats.entries = 0;
        if self.refused_at.is_some() || self.damaged >= MAX_DAMAGED {
            state.stats.skipped += round.records.len() as u64;
        }
        state.stats.error = Some(told);
    }

    fn set_aside(&self) -> std::io::Result<PathBuf> {
        let path: &Path = &self.path;
        set_aside(path, SystemTime::now())
    }
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
