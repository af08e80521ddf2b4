//! Limits, ages and counts, also against a plain list.

use crate::cache::key::{KeySpace, RowKey};
use crate::cache::memory::{ENTRY_BYTES, Memory};
use crate::cache::row::CachedRow;
use proptest::prelude::{prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::{Just, Strategy};
use std::time::{Duration, Instant};

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
fn a_row_of_another_length_is_not_found() {
    let now = Instant::now();
    let mut memory = Memory::new(2, TTL);
    memory.insert(key(1), row(&[1.0, 2.0]), now);
    assert_eq!(memory.find(&key(1), 1, now), None);
    assert_eq!(memory.find(&key(1), 2, now), Some(row(&[1.0, 2.0])));
}

#[test]
fn rows_of_the_file_take_free_space_only() {
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
    assert!(!load(&mut memory, 3, 3.0, now), "it was read before the cache was cleared");
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
    fn it_behaves_like_a_plain_list(
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
                    let position = naive.0.iter().position(|&(n, _, _)| n == number);
                    let entry = position.map(|position| naive.0.remove(position));
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
