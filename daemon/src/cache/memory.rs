//! The entries in memory: their ages, and which one is evicted first. Pure: the time is an argument.

#[cfg(test)]
mod tests;

use crate::cache::key::{KeyHash, RowKey};
use crate::cache::row::CachedRow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// Bytes of an entry besides its values: itself, its key in three indices, and their slack.
const ENTRY_BYTES: usize = size_of::<Entry>() + 3 * size_of::<RowKey>() + 96;

/// Rows by key. Each is kept for the same time; the least recently used are evicted.
#[derive(Debug)]
pub(super) struct Memory {
    max_entries: usize,
    ttl: Duration,
    entries: HashMap<RowKey, Entry, KeyHash>,
    /// By last use, the least recently used first.
    uses: BTreeMap<i64, RowKey>,
    /// By age, the oldest first.
    births: BTreeSet<(Instant, RowKey)>,
    bytes: usize,
    /// How often the cache was cleared: rows that were read from the file before that are not added
    /// after it.
    generation: u64,
    pub(super) counts: Counts,
}

/// Rows that were dropped at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleared {
    /// How many.
    pub entries: usize,
    /// Bytes that they took in memory.
    pub bytes: usize,
}

/// What happened since the daemon started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) evictions: u64,
    pub(super) expired: u64,
}

impl Memory {
    pub(super) fn new(max_entries: usize, ttl: Duration) -> Self {
        Self {
            max_entries,
            ttl,
            entries: HashMap::default(),
            uses: BTreeMap::new(),
            births: BTreeSet::new(),
            bytes: 0,
            generation: 0,
            counts: Counts::default(),
        }
    }

    /// The row of a key, if there is one with `width` values. Counts neither a hit nor a miss.
    pub(super) fn find(&mut self, key: &RowKey, width: usize, now: Instant) -> Option<CachedRow> {
        let entry = self.entries.get_mut(key)?;
        if is_over(entry.born, self.ttl, now) {
            self.remove(key);
            self.counts.expired += 1;
            return None;
        }
        if entry.row.values.len() != width {
            return None;
        }
        self.uses.remove(&entry.used);
        entry.used = self.uses.last_key_value().map_or(0, |(last, _)| last + 1);
        self.uses.insert(entry.used, *key);
        Some(entry.row.clone())
    }

    /// Adds a row as the most recently used, in place of an earlier one with the same key.
    pub(super) fn insert(&mut self, key: RowKey, row: CachedRow, now: Instant) {
        self.remove(&key);
        self.purge(now);
        if self.max_entries == 0 || self.ttl.is_zero() {
            return;
        }
        self.evict_to(self.max_entries - 1);
        let used = self.uses.last_key_value().map_or(0, |(last, _)| last + 1);
        self.add(key, Entry { row, born: now, used });
    }

    /// Adds a row of the file as the least recently used, if there is room and no newer row of the
    /// key. `false`: it was not added.
    pub(super) fn insert_oldest(
        &mut self,
        generation: u64,
        key: RowKey,
        row: CachedRow,
        born: Instant,
        now: Instant,
    ) -> bool {
        let is_wanted = generation == self.generation
            && self.entries.len() < self.max_entries
            && !is_over(born, self.ttl, now)
            && !self.entries.contains_key(&key);
        if is_wanted {
            let used = self.uses.first_key_value().map_or(0, |(first, _)| first - 1);
            self.add(key, Entry { row, born, used });
        }
        is_wanted
    }

    /// Drops rows that are too old, and returns how many.
    pub(super) fn purge(&mut self, now: Instant) -> usize {
        let mut count = 0;
        while let Some((born, key)) = self.births.first().copied()
            && is_over(born, self.ttl, now)
        {
            self.remove(&key);
            count += 1;
        }
        self.counts.expired += count as u64;
        count
    }

    /// Drops every row, and frees the memory.
    pub(super) fn clear(&mut self) -> Cleared {
        let cleared = Cleared { entries: self.entries.len(), bytes: self.bytes };
        let generation = self.generation + 1;
        *self = Self { generation, counts: self.counts, ..Self::new(self.max_entries, self.ttl) };
        cleared
    }

    /// Changes the limits, and drops rows beyond them. The time to live counts from the computation
    /// of a row, even if another one was in force then.
    pub(super) fn set_limits(&mut self, max_entries: usize, ttl: Duration, now: Instant) {
        (self.max_entries, self.ttl) = (max_entries, ttl);
        self.purge(now);
        self.evict_to(max_entries);
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    fn evict_to(&mut self, most: usize) {
        while self.entries.len() > most
            && let Some((_, &key)) = self.uses.first_key_value()
        {
            self.remove(&key);
            self.counts.evictions += 1;
        }
    }

    fn add(&mut self, key: RowKey, entry: Entry) {
        self.bytes += bytes_of(&entry);
        self.uses.insert(entry.used, key);
        self.births.insert((entry.born, key));
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: &RowKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= bytes_of(&entry);
            self.uses.remove(&entry.used);
            self.births.remove(&(entry.born, *key));
        }
    }
}

#[derive(Debug)]
struct Entry {
    row: CachedRow,
    born: Instant,
    used: i64,
}

fn bytes_of(entry: &Entry) -> usize {
    size_of_val(&*entry.row.values) + ENTRY_BYTES
}

/// Whether an entry is too old. To a thread that read the clock before the entry was made, the entry
/// is new.
fn is_over(born: Instant, ttl: Duration, now: Instant) -> bool {
    now.saturating_duration_since(born) >= ttl
}
