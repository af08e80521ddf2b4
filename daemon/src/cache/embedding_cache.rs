//! The cache as the rest of the daemon sees it: memory in front, and a file behind it.

use crate::cache::clear_error::ClearError;
use crate::cache::clock::Clock;
use crate::cache::key::RowKey;
use crate::cache::memory::{Cleared, Memory};
use crate::cache::persist::Persistence;
use crate::cache::row::CachedRow;
use crate::cache::settings::CacheSettings;
use crate::cache::store::Record;
use crate::ground::sync::lock;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// How long clearing the cache waits for the disk.
const CLEAR_PATIENCE: Duration = Duration::from_secs(20);

/// What the cache holds, and what happened since the daemon started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Rows in memory.
    pub entries: usize,
    /// Bytes of those rows, with their keys and indices (these are estimated).
    pub bytes: usize,
    /// Look-ups that found a row.
    pub hits: u64,
    /// Look-ups that found none.
    pub misses: u64,
    /// Rows that were dropped to make room for others.
    pub evictions: u64,
    /// Rows that were dropped because of their age.
    pub expired: u64,
    /// Rows in the file.
    pub persisted_entries: usize,
    /// Rows that were not written to the file: too many waited, or the file could not be used.
    pub persist_skipped: u64,
    /// Why the file could not be used (`CACHE_ERROR`), for people.
    pub error: Option<String>,
}

/// Rows by key. Any thread may call any method. A method waits for the file only if its
/// documentation says so.
#[derive(Debug)]
pub struct EmbeddingCache {
    memory: Arc<Mutex<Memory>>,
    persistence: Option<Persistence>,
    clock: Clock,
    /// Why there is no writer, although the settings require one.
    error: Option<String>,
}

impl EmbeddingCache {
    /// A cache with these settings; a disabled one has no file. `now` and `wall` are the same moment.
    ///
    /// Never fails: [`CacheStats::error`] and the log report a file that cannot be used. Returns
    /// before the file is read; its rows appear as they are read.
    #[must_use]
    pub fn open(settings: &CacheSettings, now: Instant, wall: SystemTime) -> Self {
        let CacheSettings { max_entries, ttl, .. } = *settings;
        let clock = Clock::new(now, wall);
        let memory = Arc::new(Mutex::new(Memory::new(max_entries, ttl)));
        let started = (settings.enabled && settings.persists).then(|| {
            let no_file = "no file is configured: set embedding_cache.file";
            let path = settings.file.clone().ok_or_else(|| no_file.to_owned())?;
            Persistence::start(path, max_entries, ttl, &memory, clock)
                .map_err(|error| format!("the thread that writes it cannot be started: {error}"))
        });
        let (persistence, error) = match started.transpose() {
            Ok(persistence) => (persistence, None),
            Err(error) => {
                tracing::error!(code = "CACHE_ERROR", error, "nothing is persisted");
                (None, Some(format!("nothing is persisted: {error}")))
            }
        };
        Self { memory, persistence, clock, error }
    }

    /// Looks up a row, and counts a hit or a miss. A row without exactly `width` values is a miss.
    pub fn get(&self, key: &RowKey, width: usize, now: Instant) -> Option<CachedRow> {
        let mut memory = lock(&self.memory);
        let found = memory.find(key, width, now);
        match found {
            Some(_) => memory.counts.hits += 1,
            None => memory.counts.misses += 1,
        }
        found
    }

    /// Looks up a row again after a miss. Counts neither a hit nor a miss.
    pub(crate) fn get_again(&self, key: &RowKey, width: usize, now: Instant) -> Option<CachedRow> {
        lock(&self.memory).find(key, width, now)
    }

    /// Adds a row, in place of an earlier one with the same key.
    pub fn insert(&self, key: RowKey, row: CachedRow, now: Instant) {
        if let Some(persistence) = &self.persistence {
            persistence.offer(Record { key, row: row.clone(), born: self.clock.wall(now) });
        }
        lock(&self.memory).insert(key, row, now);
    }

    /// Drops rows that are too old, and returns how many were in memory. They are never used anyway:
    /// this frees their memory.
    pub fn purge(&self, now: Instant) -> usize {
        if let Some(persistence) = &self.persistence {
            persistence.purge(self.clock.wall(now));
        }
        lock(&self.memory).purge(now)
    }

    /// Drops every row of every user and model, from memory and from the file. Blocks until both are
    /// done. Files that were set aside as damaged stay.
    ///
    /// # Errors
    /// Why the file could not be emptied. The rows in memory are gone in any case.
    pub fn clear(&self) -> Result<Cleared, ClearError> {
        let cleared = lock(&self.memory).clear();
        match &self.persistence {
            Some(persistence) => persistence.clear(CLEAR_PATIENCE).map(|()| cleared),
            None => Ok(cleared),
        }
    }

    /// Drops every row from memory. Rows in the file stay.
    pub(crate) fn forget(&self) {
        lock(&self.memory).clear();
    }

    /// Changes the limits, including those for rows that are already in the cache.
    pub fn set_limits(&self, max_entries: usize, ttl: Duration, now: Instant) {
        lock(&self.memory).set_limits(max_entries, ttl, now);
        if let Some(persistence) = &self.persistence {
            persistence.set_limits(max_entries, ttl, self.clock.wall(now));
        }
    }

    /// Blocks until every row for the file is written or given up. `false`: that took longer than
    /// `patience`.
    pub fn flush(&self, patience: Duration) -> bool {
        self.persistence.as_ref().is_none_or(|persistence| persistence.flush(patience))
    }

    /// The counters now.
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
