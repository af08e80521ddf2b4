//! Records, damage, and files that are not ours.

use crate::cache::key::KeySpace;
use crate::cache::row::CachedRow;
use crate::cache::store::{MAX_NEW_BYTES, Record, Store, StoreError, decode, encode};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, UNIX_EPOCH};

fn record(number: u64, born: u64) -> Record {
    Record {
        key: KeySpace::new(&[0; 32], 1, None, "").row(&number.to_string()),
        row: CachedRow {
            values: [number as f32, f32::MIN_POSITIVE / 2.0, -0.0].into(),
            truncated: number.is_multiple_of(2),
        },
        born: UNIX_EPOCH + Duration::from_millis(born),
    }
}

fn all(store: &Store) -> Vec<Record> {
    let mut records = Vec::new();
    store.read(|record| records.push(record)).unwrap();
    records
}

#[test]
fn rows_come_back_youngest_first_and_the_oldest_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deeper/cache.redb");
    let mut store = Store::open(&path).unwrap();
    assert_eq!(all(&store), []);
    let records: Vec<Record> = (0..5).map(|n| record(n, 1000 + n)).collect();
    store.write(&records, 3, UNIX_EPOCH).unwrap();
    // Computed again, it is younger.
    store.write(&[record(2, 2000)], 3, UNIX_EPOCH).unwrap();
    drop(store);
    let mut store = Store::open(&path).unwrap();
    let expected = [record(2, 2000), record(4, 1004), record(3, 1003)];
    assert_eq!(all(&store), expected);
    store.write(&[], 3, UNIX_EPOCH + Duration::from_millis(1003)).unwrap();
    assert_eq!(all(&store), expected[..2]);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn one_wrong_bit_is_found() {
    let record = record(1, 1);
    let bytes = encode(&record);
    for bit in 0..8 * bytes.len() {
        let mut wrong = bytes.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(record.key, &wrong).is_err(), "bit {bit}");
    }
    assert!(decode(record.key, &[]).is_err());
    assert_eq!(decode(record.key, &bytes).unwrap(), record);
}

#[test]
fn a_file_whose_maker_died_at_once_is_created_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.redb");
    drop(Store::open(&path).unwrap());
    let len = std::fs::metadata(&path).unwrap().len();
    assert!(len < MAX_NEW_BYTES);
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    bytes[9..300].fill(7);
    std::fs::write(&path, &bytes).unwrap();
    drop(Store::open(&path).unwrap());
    bytes[5000] = 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(Store::open(&path).err(), Some(StoreError::Damaged(_))));
}

#[test]
fn a_file_of_another_process_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.redb");
    let _held = Store::open(&path).unwrap();
    assert!(matches!(Store::open(&path).err(), Some(StoreError::Held)));
}
