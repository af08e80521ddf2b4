//! The entries in memory: which there are, for how long, and which one goes first. Pure: the time
//! is given.

use crate::cache::key::{KeyHash, RowKey};
use crate::cache::{CachedRow, Cleared};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// What an entry takes beside its values: itself, its key in three indices, and their slack.
const ENTRY_BYTES: usize = size_of::<Entry>() + 3 * size_of::<RowKey>() + 96;

/// Rows by key, each kept for the same time, the least recently used of too many given up.
#[derive(Debug)]
pub(super) struct Memory {
    max_entries: usize,
    ttl: Duration,
    entries: HashMap<RowKey, Entry, KeyHash>,
    /// By last use, the one that goes first in front.
    uses: BTreeMap<i64, RowKey>,
    /// By age, the oldest in front.
    births: BTreeSet<(Instant, RowKey)>,
    bytes: usize,
    /// How often everything was dropped: what was read before then is not put in after it.
    generation: u64,
    pub(super) counts: Counts,
}

/// What happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) evictions: u64,
    pub(super) expired: u64,
}

#[derive(Debug)]
struct Entry {
    row: CachedRow,
    born: Instant,
    used: i64,
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

    /// The row of a key, if it is there and has `width` values. Counts neither a hit nor a miss.
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

    /// Keeps a row, in place of an earlier one of the same key, as the most recently used.
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

    /// Keeps a row of an earlier life, as the least recently used, where there is room and no newer
    /// one. `false`: it was not kept.
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

    /// Drops what is too old.
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

    /// Drops everything, and gives its memory back.
    pub(super) fn clear(&mut self) -> Cleared {
        let cleared = Cleared { entries: self.entries.len(), bytes: self.bytes };
        let generation = self.generation + 1;
        *self = Self { generation, counts: self.counts, ..Self::new(self.max_entries, self.ttl) };
        cleared
    }

    /// Takes other limits, and drops what is beyond them. A time to live counts from an entry's
    /// birth, whatever was in force then.
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

fn bytes_of(entry: &Entry) -> usize {
    size_of_val(&*entry.row.values) + ENTRY_BYTES
}

/// Whether an entry has had its time. A thread that looked at the clock earlier than the one that
/// made the entry finds it new.
fn is_over(born: Instant, ttl: Duration, now: Instant) -> bool {
    now.saturating_duration_since(born) >= ttl
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::KeySpace;
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use proptest::strategy::{Just, Strategy};

    const TTL: Duration = Duration::from_secs(10);

    fn key(number: u32) -> RowKey {
        KeySpace::new(&[0; 32], 1, None, "").row(&number.to_string())
    }

    fn read(memory: &mut Memory, number: u32, now: Instant) -> Option<f32> {
        memory.find(&key(number), 1, now).map(|row| row.values[0])
    }

    fn row(values: &[f32]) -> CachedRow {
        CachedRow { values: values.into(), truncated: values.len() > 1 }
    }

    #[test]
    fn an_entry_lives_its_time_and_not_a_nanosecond_more() {
        let start = Instant::now();
        let mut memory = Memory::new(10, TTL);
        memory.insert(key(1), row(&[1.5]), start);
        // A use does not make it younger.
        let last = start + TTL - Duration::from_nanos(1);
        assert_eq!(read(&mut memory, 1, last), Some(1.5));
        assert_eq!(read(&mut memory, 1, start + TTL), None);
        assert_eq!((memory.len(), memory.bytes(), memory.counts.expired), (0, 0, 1));
    }

    #[test]
    fn the_least_recently_used_one_goes() {
        let now = Instant::now();
        let mut memory = Memory::new(2, TTL);
        memory.insert(key(1), row(&[1.0]), now);
        memory.insert(key(2), row(&[2.0]), now);
        read(&mut memory, 1, now);
        memory.insert(key(3), row(&[3.0]), now);
        let found = [1, 2, 3].map(|number| read(&mut memory, number, now));
        assert_eq!(found, [Some(1.0), None, Some(3.0)]);
        assert_eq!(memory.counts.evictions, 1);
    }

    #[test]
    fn a_row_of_another_length_is_not_given() {
        let now = Instant::now();
        let mut memory = Memory::new(2, TTL);
        memory.insert(key(1), row(&[1.0, 2.0]), now);
        assert_eq!(memory.find(&key(1), 1, now), None);
        assert_eq!(memory.find(&key(1), 2, now), Some(row(&[1.0, 2.0])));
    }

    #[test]
    fn rows_of_an_earlier_life_take_free_places_only() {
        let now = Instant::now();
        let mut memory = Memory::new(2, TTL);
        memory.insert(key(1), row(&[1.0]), now);
        let generation = memory.generation();
        let load = |memory: &mut Memory, number: u32, value: f32, born| {
            memory.insert_oldest(generation, key(number), row(&[value]), born, now)
        };
        assert!(!load(&mut memory, 1, 9.0, now), "there is a newer one");
        assert!(!load(&mut memory, 2, 9.0, now - TTL), "it is too old");
        assert!(load(&mut memory, 3, 3.0, now - TTL / 2));
        assert!(!load(&mut memory, 4, 9.0, now), "there is no room");
        memory.insert(key(5), row(&[5.0]), now);
        let found = [1, 3, 5].map(|number| read(&mut memory, number, now));
        assert_eq!(found, [Some(1.0), None, Some(5.0)]);
        memory.clear();
        assert!(!load(&mut memory, 3, 3.0, now), "it was read before everything was dropped");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Read(u32),
        Insert(u32),
        Wait(u64),
        Purge,
        Clear,
        Limits(usize, u64),
    }

    /// A list from the least to the most recently used: (number, value, born).
    #[derive(Default)]
    struct Naive(Vec<(u32, f32, Instant)>);

    impl Naive {
        fn purge(&mut self, ttl: Duration, now: Instant) {
            self.0.retain(|&(_, _, born)| now - born < ttl);
        }

        fn cut(&mut self, most: usize) {
            self.0.drain(..self.0.len().saturating_sub(most));
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0u32..12).prop_map(Step::Read),
            6 => (0u32..12).prop_map(Step::Insert),
            4 => (0u64..4).prop_map(Step::Wait),
            1 => Just(Step::Purge),
            1 => Just(Step::Clear),
            1 => (0usize..8, 0u64..14).prop_map(|(most, ttl)| Step::Limits(most, ttl)),
        ]
    }

    proptest! {
        #[test]
        fn it_does_what_a_plain_list_does(
            steps in prop::collection::vec(step(), 0..200), most in 0usize..8,
        ) {
            let mut now = Instant::now();
            let (mut most, mut ttl) = (most, TTL);
            let mut memory = Memory::new(most, ttl);
            let mut naive = Naive::default();
            for (value, step) in steps.into_iter().enumerate() {
                let value = value as f32;
                match step {
                    Step::Read(number) => {
                        let found = read(&mut memory, number, now);
                        let place = naive.0.iter().position(|&(n, _, _)| n == number);
                        let entry = place.map(|place| naive.0.remove(place));
                        let entry = entry.filter(|&(_, _, born)| now - born < ttl);
                        prop_assert_eq!(found, entry.map(|(_, value, _)| value));
                        naive.0.extend(entry);
                    }
                    Step::Insert(number) => {
                        memory.insert(key(number), row(&[value]), now);
                        naive.0.retain(|&(n, _, _)| n != number);
                        naive.purge(ttl, now);
                        naive.0.push((number, value, now));
                        naive.cut(if ttl.is_zero() { 0 } else { most });
                    }
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                    Step::Purge => {
                        memory.purge(now);
                        naive.purge(ttl, now);
                    }
                    Step::Clear => {
                        let cleared = memory.clear();
                        prop_assert_eq!(cleared.entries, naive.0.len());
                        naive.0.clear();
                    }
                    Step::Limits(new_most, seconds) => {
                        (most, ttl) = (new_most, Duration::from_secs(seconds));
                        memory.set_limits(most, ttl, now);
                        naive.purge(ttl, now);
                        naive.cut(most);
                    }
                }
                prop_assert_eq!(memory.len(), naive.0.len());
                prop_assert!(memory.len() <= most);
                prop_assert_eq!(memory.bytes(), memory.len() * (4 + ENTRY_BYTES));
                prop_assert_eq!(memory.uses.len(), memory.len());
                prop_assert_eq!(memory.births.len(), memory.len());
            }
        }
    }
}
