//! The embedding cache and its file: restarts, crashes, damage.

use emberd_daemon::cache::{CacheSettings, CachedRow, EmbeddingCache, KeySpace, RowKey};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

const TTL: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(20);

/// The variable that tells the child of the test of crashes where to write.
const CHILD: &str = "EMBERD_TEST_CACHE_FILE";

fn settings(path: &Path) -> CacheSettings {
    CacheSettings {
        ttl: TTL,
        persists: true,
        file: Some(path.to_owned()),
        ..CacheSettings::default()
    }
}

/// An open cache whose file has been read.
fn open(settings: &CacheSettings, wall: SystemTime) -> EmbeddingCache {
    let cache = EmbeddingCache::open(settings, Instant::now(), wall);
    assert!(cache.flush(PATIENCE));
    cache
}

fn key(number: u32) -> RowKey {
    KeySpace::new(&[7; 32], 96, Some(1), "").row(&number.to_string())
}

/// A row whose every bit is known.
fn row(number: u32) -> Vec<f32> {
    (0..96u32).map(|n| f32::from_bits(number.wrapping_mul(2_654_435_761).rotate_left(n))).collect()
}

/// Whether the row is there; if it is, every bit of it is right.
fn holds(cache: &EmbeddingCache, number: u32, now: Instant) -> bool {
    let Some(found) = cache.get(&key(number), 96, now) else { return false };
    let bits = |row: &[f32]| row.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&found.values), bits(&row(number)), "row {number}");
    assert_eq!(found.truncated, number.is_multiple_of(3), "row {number}");
    true
}

fn insert(cache: &EmbeddingCache, number: u32, now: Instant) {
    let row = CachedRow { values: row(number).into(), truncated: number.is_multiple_of(3) };
    cache.insert(key(number), row, now);
}

fn damaged_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the test made the folder").flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains(".damaged-"))
        .collect()
}

#[test]
fn rows_outlive_the_daemon_for_the_rest_of_their_time() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder.path().join("cache.redb"));
    let wall = SystemTime::now();
    let first = open(&settings, wall);
    let now = Instant::now();
    insert(&first, 1, now);
    drop(first);

    let second = open(&settings, wall + TTL / 2);
    let now = Instant::now();
    assert!(holds(&second, 1, now));
    let second_long = Duration::from_secs(1);
    assert!(holds(&second, 1, now + TTL / 2 - second_long));
    assert!(!holds(&second, 1, now + TTL / 2 + second_long), "its time counts from its birth");
    drop(second);
    let third = open(&settings, wall + TTL + Duration::from_secs(60));
    assert_eq!((third.stats().entries, third.stats().persisted_entries), (0, 0));
    assert_eq!(third.stats().error, None);
}

#[test]
fn a_row_from_the_future_has_no_known_age_and_is_not_given() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder.path().join("cache.redb"));
    let wall = SystemTime::now();
    let first = open(&settings, wall + TTL);
    insert(&first, 1, Instant::now());
    drop(first);
    assert!(!holds(&open(&settings, wall), 1, Instant::now()));
}

#[test]
fn the_file_holds_no_more_than_it_may_and_other_limits_hold_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let settings = CacheSettings { max_entries: 50, ..settings(&folder.path().join("cache.redb")) };
    let cache = open(&settings, SystemTime::now());
    let now = Instant::now();
    for number in 0..500 {
        insert(&cache, number, now + Duration::from_millis(u64::from(number)));
        if number % 40 == 0 {
            assert!(cache.flush(PATIENCE));
            assert!(cache.stats().persisted_entries <= 50);
        }
    }
    assert!(cache.flush(PATIENCE));
    assert_eq!((cache.stats().entries, cache.stats().persisted_entries), (50, 50));
    cache.set_limits(20, TTL, now);
    assert!(cache.flush(PATIENCE));
    assert_eq!((cache.stats().entries, cache.stats().persisted_entries), (20, 20));
    drop(cache);
    let cache = open(&settings, SystemTime::now() + Duration::from_secs(1));
    assert_eq!((0..500).filter(|&n| holds(&cache, n, now)).count(), 20);
    assert!((480..500).all(|number| holds(&cache, number, now)), "the youngest stay");
}

#[test]
fn cleared_rows_stay_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.redb");
    let cache = open(&settings(&path), SystemTime::now());
    let now = Instant::now();
    (0..100).for_each(|number| insert(&cache, number, now));
    assert!(cache.flush(PATIENCE));
    insert(&cache, 100, now);
    let cleared = cache.clear().unwrap();
    assert_eq!(cleared.entries, 101);
    assert!(cleared.bytes > 101 * 96 * 4);
    insert(&cache, 101, now);
    drop(cache);
    let cache = open(&settings(&path), SystemTime::now() + Duration::from_secs(1));
    let found: Vec<u32> = (0..200).filter(|&n| holds(&cache, n, Instant::now())).collect();
    assert_eq!(found, [101]);
}

#[test]
fn rows_beyond_what_may_wait_are_skipped_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let settings =
        CacheSettings { max_entries: 1 << 20, ..settings(&folder.path().join("cache.redb")) };
    let cache = open(&settings, SystemTime::now());
    let now = Instant::now();
    let large = CachedRow { values: vec![1.0; 1 << 20].into(), truncated: false };
    for number in 0..32 {
        cache.insert(key(number), large.clone(), now);
    }
    assert!(cache.stats().persist_skipped > 0);
    assert_eq!(cache.stats().entries, 32, "memory has them all");
    assert!(cache.flush(PATIENCE));
    let stats = cache.stats();
    assert_eq!(stats.persist_skipped + stats.persisted_entries as u64, 32);
}

#[test]
fn an_unusable_file_is_reported_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.redb");
    let holder = open(&settings(&path), SystemTime::now());
    let other = open(&settings(&path), SystemTime::now());
    let now = Instant::now();
    for cache in [&holder, &other] {
        insert(cache, 1, now);
        assert!(cache.flush(PATIENCE));
        assert!(holds(cache, 1, now), "the cache works without its file");
    }
    assert_eq!(holder.stats().error, None);
    assert!(other.stats().error.unwrap().contains("another process holds the file"));
    assert_eq!(damaged_files(folder.path()), [] as [PathBuf; 0]);

    // A folder in place of the file, and a file in place of the folder.
    for path in [folder.path().to_owned(), path.join("cache.redb")] {
        let cache = open(&settings(&path), SystemTime::now());
        insert(&cache, 1, now);
        assert!(cache.flush(PATIENCE));
        assert!(cache.stats().error.is_some() && cache.stats().persist_skipped == 1);
        assert!(holds(&cache, 1, now));
    }
}

#[test]
fn a_file_of_something_else_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.redb");
    let letter = "Dear database,\n".repeat(5000);
    fs::write(&path, &letter).unwrap();
    let cache = open(&settings(&path), SystemTime::now());
    let error = cache.stats().error.unwrap();
    let [aside] = &damaged_files(folder.path())[..] else { panic!("{error}") };
    assert!(error.contains(&aside.display().to_string()), "{error}");
    assert_eq!(fs::read_to_string(aside).unwrap(), letter, "it can be looked at");
    insert(&cache, 1, Instant::now());
    assert!(cache.flush(PATIENCE));
    assert!(cache.stats().error.is_some(), "the error is reported until the cache is cleared");
    drop(cache);
    let cache = open(&settings(&path), SystemTime::now() + Duration::from_secs(1));
    assert!(holds(&cache, 1, Instant::now()), "a new file was created");
    assert_eq!(cache.stats().error, None);
}

#[test]
fn damage_anywhere_costs_rows_and_never_changes_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.redb");
    let cache = open(&settings(&path), SystemTime::now());
    let now = Instant::now();
    (0..300).for_each(|number| insert(&cache, number, now));
    drop(cache);
    let whole = fs::read(&path).unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(random >> 33).unwrap() % below
    };
    let mut found_damage = 0;
    for round in 0..60 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.redb");
        let mut bytes = whole.clone();
        match round % 3 {
            // A bit, somewhere in the pages that are used; half of them near the front.
            0 => bytes[next(if round % 2 == 0 { 4096 } else { 200_000 })] ^= 1 << next(8),
            1 => {
                let start = next(200_000);
                bytes[start..start + 4096].fill(0xa5);
            }
            _ => bytes.truncate(next(whole.len())),
        }
        fs::write(&path, bytes).unwrap();
        let wall = SystemTime::now() + Duration::from_secs(1);
        let cache = open(&settings(&path), wall);
        let found = (0..300).filter(|&number| holds(&cache, number, now)).count();
        let damage = cache.stats().error;
        assert_eq!(damage.is_some(), !damaged_files(folder.path()).is_empty(), "{damage:?}");
        assert!(damage.is_some() || found == 300 || round % 3 == 2, "{found} rows, no error");
        found_damage += usize::from(damage.is_some());
        insert(&cache, 1000, now);
        drop(cache);
        let again = open(&settings(&path), wall + Duration::from_secs(1));
        assert!(holds(&again, 1000, now), "it goes on after damage {damage:?}");
    }
    assert!(found_damage >= 20, "{found_damage} of 60");
}

/// The child of the next test: writes until it is killed.
#[test]
#[ignore = "run by the test about sudden deaths"]
fn child_that_writes_until_it_is_killed() {
    let path = PathBuf::from(std::env::var_os(CHILD).expect("run by another test"));
    let cache = Arc::new(open(&settings(&path), SystemTime::now()));
    let flushes = Arc::clone(&cache);
    // One transaction after another.
    std::thread::spawn(move || while flushes.flush(PATIENCE) {});
    println!("writing");
    for number in (0..3000).cycle() {
        insert(&cache, number, Instant::now());
        if number % 16 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn rows_survive_a_sudden_death_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.redb");
    let mut most = 0;
    for round in 0..20u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("writing") {
            line.clear();
            assert_ne!(std::io::BufRead::read_line(&mut output, &mut line).unwrap(), 0);
        }
        // A different moment in each round, during several transactions.
        std::thread::sleep(Duration::from_micros(500 + round * round * 487));
        child.kill().unwrap();
        child.wait().unwrap();
        let cache = open(&settings(&path), SystemTime::now() + Duration::from_secs(1));
        let stats = cache.stats();
        assert_eq!(stats.error, None, "round {round}");
        let found = (0..3000).filter(|&number| holds(&cache, number, Instant::now())).count();
        assert_eq!(found, stats.persisted_entries, "round {round}");
        assert!(found >= most, "round {round}: {found} rows, there were {most}");
        most = found;
    }
    assert!(most > 300, "{most} rows: the rounds were too short to try anything");
    assert_eq!(damaged_files(folder.path()), [] as [PathBuf; 0]);
}
