//! The embedding cache: rows that were computed before, kept for a time, given out again bit by
//! bit.
//!
//! ```text
//! texts ──key──▶ memory ──hit──▶ the row's place in the answer
//!                  │ ▲ miss: once, however many wait (flight) ──▶ queue, worker
//!                  │ └───────────────────────── insert ◀──────────────┘
//!                  └──written behind──▶ file (persist, store), read once at the start
//! ```
//!
//! An entry is the whole row as the model makes it, before any cut or change of its elements. Its
//! key ([`RowKey`]) is a hash of all that determines it, and of the user whose it is: how fast an
//! answer comes tells what was asked before, so rows are shared between users only where the
//! settings say so. Time is given by the caller; only the file's writer has a thread.

pub(crate) mod clock;
pub(crate) mod flight;
pub(crate) mod key;
pub(crate) mod memory;
pub(crate) mod persist;
pub(crate) mod store;
pub(crate) mod ticket;

pub use crate::cache::key::{KeySpace, RowKey};
pub(crate) use crate::cache::ticket::{Claimed, Ticket, claim};

use crate::batching::job::Entry;
use crate::cache::clock::Clock;
use crate::cache::flight::Flights;
use crate::cache::memory::Memory;
use crate::cache::persist::Persistence;
use crate::cache::store::Record;
use crate::ground::sync::lock;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// How long an order to forget everything waits for the disk.
const CLEAR_PATIENCE: Duration = Duration::from_secs(20);

/// How long rows are kept, how many, where, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// Whether there is a cache at all.
    pub enabled: bool,
    /// Rows in memory at most, and as many in the file.
    pub max_entries: usize,
    /// How long after it was computed a row may be given out; at this age it is gone.
    pub ttl: Duration,
    /// Whether rows outlive the daemon, in a file.
    pub persists: bool,
    /// That file.
    pub file: Option<PathBuf>,
    /// Whether one user may be given a row that was computed for another. How long an answer
    /// takes then tells any user whether another one has embedded the same text.
    pub is_shared_between_users: bool,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            max_entries: 10_000,
            ttl: Duration::from_secs(3600),
            persists: false,
            file: None,
            is_shared_between_users: false,
        }
    }
}

/// A row as the model made it, shared with the cache and never copied until it is written to its
/// place.
#[derive(Debug, Clone, PartialEq)]
pub struct CachedRow {
    /// All the values that the model makes, before any cut.
    pub values: Arc<[f32]>,
    /// Whether its text was longer than the model reads, and lost its end.
    pub truncated: bool,
}

/// What was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleared {
    /// Rows.
    pub entries: usize,
    /// What they took in memory.
    pub bytes: usize,
}

/// What the cache holds, and what it did since the daemon started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Rows in memory.
    pub entries: usize,
    /// What they take there, their keys and indices included (these by estimate).
    pub bytes: usize,
    /// Texts whose row was found.
    pub hits: u64,
    /// Texts whose row was not.
    pub misses: u64,
    /// Rows that made room for others.
    pub evictions: u64,
    /// Rows that were dropped for their age.
    pub expired: u64,
    /// Rows in the file.
    pub persisted_entries: usize,
    /// Rows that were not written to the file, since too many waited or it could not be used.
    pub persist_skipped: u64,
    /// Why the file could not be used (`CACHE_ERROR`), in words.
    pub error: Option<String>,
}

/// Rows by what determines them. Every method may be called from any thread; none waits for the
/// file unless it says so.
#[derive(Debug)]
pub struct EmbeddingCache {
    memory: Arc<Mutex<Memory>>,
    persistence: Option<Persistence>,
    /// What was not found and is on its way.
    flights: Flights<Entry>,
    clock: Clock,
    /// Why there is no writer, where there should be one.
    error: Option<String>,
}

impl EmbeddingCache {
    /// A cache as the settings say. One that is not `enabled` has no file. `now` and `wall` are the
    /// same moment.
    ///
    /// Cannot fail: a file that is of no use is told of in [`CacheStats::error`] and in the log.
    /// Returns before the file is read; its rows appear as they are read.
    #[must_use]
    pub fn open(settings: &CacheSettings, now: Instant, wall: SystemTime) -> Self {
        let CacheSettings { max_entries, ttl, .. } = *settings;
        let clock = Clock::new(now, wall);
        let memory = Arc::new(Mutex::new(Memory::new(max_entries, ttl)));
        let started = (settings.enabled && settings.persists).then(|| {
            let no_file = "no file was given for it: set embedding_cache.file";
            let path = settings.file.clone().ok_or_else(|| no_file.to_owned())?;
            Persistence::start(path, max_entries, ttl, &memory, clock)
                .map_err(|error| format!("there is no thread to write it: {error}"))
        });
        let (persistence, error) = match started.transpose() {
            Ok(persistence) => (persistence, None),
            Err(error) => {
                tracing::error!(code = "CACHE_ERROR", error, "nothing is persisted");
                (None, Some(format!("nothing is persisted: {error}")))
            }
        };
        Self { memory, persistence, flights: Flights::default(), clock, error }
    }

    /// The row of a key, and counts a hit or a miss. A row of other than `width` values is a miss.
    pub fn get(&self, key: &RowKey, width: usize, now: Instant) -> Option<CachedRow> {
        let mut memory = lock(&self.memory);
        let found = memory.find(key, width, now);
        match found {
            Some(_) => memory.counts.hits += 1,
            None => memory.counts.misses += 1,
        }
        found
    }

    /// Looks for a row again after a miss, and counts nothing.
    pub(crate) fn get_again(&self, key: &RowKey, width: usize, now: Instant) -> Option<CachedRow> {
        lock(&self.memory).find(key, width, now)
    }

    /// Keeps a row for its time. What was kept under the key before is replaced.
    pub fn insert(&self, key: RowKey, row: CachedRow, now: Instant) {
        if let Some(persistence) = &self.persistence {
            persistence.offer(Record { key, row: row.clone(), born: self.clock.wall(now) });
        }
        lock(&self.memory).insert(key, row, now);
    }

    /// Drops what is too old; answers how many rows went from memory. They are never given out in
    /// any case: this gives their memory back.
    pub fn purge(&self, now: Instant) -> usize {
        if let Some(persistence) = &self.persistence {
            persistence.purge(self.clock.wall(now));
        }
        lock(&self.memory).purge(now)
    }

    /// Drops every row of every user and model, from memory and from the file; blocks until both
    /// are done. Files that were set aside as damaged stay.
    ///
    /// # Errors
    /// Why the file could not be emptied. What is in memory is gone in any case.
    pub fn clear(&self) -> Result<Cleared, String> {
        let cleared = lock(&self.memory).clear();
        match &self.persistence {
            Some(persistence) => persistence.clear(CLEAR_PATIENCE).map(|()| cleared),
            None => Ok(cleared),
        }
    }

    /// Drops every row from memory; those in the file stay there.
    pub(crate) fn forget(&self) {
        lock(&self.memory).clear();
    }

    /// Takes other limits, also for what is inside.
    pub fn set_limits(&self, max_entries: usize, ttl: Duration, now: Instant) {
        lock(&self.memory).set_limits(max_entries, ttl, now);
        if let Some(persistence) = &self.persistence {
            persistence.set_limits(max_entries, ttl, self.clock.wall(now));
        }
    }

    /// Blocks until the file has all that it is to have, or could not be given it. `false`: that
    /// took longer than `patience`.
    pub fn flush(&self, patience: Duration) -> bool {
        self.persistence.as_ref().is_none_or(|persistence| persistence.flush(patience))
    }

    /// Texts that are on their way to a row.
    #[cfg(test)]
    pub(crate) fn wanted(&self) -> usize {
        self.flights.len()
    }

    /// What it holds and did.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let persisted = self.persistence.as_ref().map(Persistence::stats).unwrap_or_default();
        let memory = lock(&self.memory);
        let counts = memory.counts;
        CacheStats {
            entries: memory.len(),
            bytes: memory.bytes(),
            hits: counts.hits,
            misses: counts.misses,
            evictions: counts.evictions,
            expired: counts.expired,
            persisted_entries: persisted.entries,
            persist_skipped: persisted.skipped,
            error: persisted.error.or_else(|| self.error.clone()),
        }
    }
}
