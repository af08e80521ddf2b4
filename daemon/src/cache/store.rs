//! Rows in a file: what one record looks like, and what is done with the file. Blocks; runs on the
//! writer's thread alone.

use crate::cache::CachedRow;
use crate::cache::key::RowKey;
use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Seek};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The rows, by key. Another layout gets another name, and then this table is not looked at.
const ROWS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("rows-1");

/// What the file's pages may take in memory: the rows themselves are kept elsewhere.
const PAGE_CACHE_BYTES: usize = 4 << 20;

/// A database that was just begun is smaller.
const MAX_NEW_BYTES: u64 = 2 << 20;

/// Birth, flags, and behind the values a sum over it all.
const HEAD_BYTES: usize = 8 + 1;
const SUM_BYTES: usize = 16;

/// Why the file is of no use, now or at all.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// Its content is wrong.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    /// It is not there any more, or another one is.
    #[error("the file was removed or replaced; a new one is begun")]
    Removed,
    /// Another process works with it.
    #[error("another process holds the file: give each daemon its own with embedding_cache.file")]
    Held,
    /// The system refused.
    #[error(
        "the file cannot be used: make room and give the daemon the right to write it, or set \
         embedding_cache.file to another place, or embedding_cache.persist_to_disk = false"
    )]
    System(#[from] io::Error),
}

/// A row as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) key: RowKey,
    pub(super) row: CachedRow,
    /// When it was computed. Not when it ends: another time to live holds for old entries too.
    pub(super) born: SystemTime,
}

/// An open file, and what is in it by age.
pub(super) struct Store {
    database: Database,
    births: BTreeSet<(u64, RowKey)>,
    /// Of its file.
    identity: (u64, u64),
}

impl Store {
    /// Opens or begins a file that only its user can read, and checks every record in it. A file
    /// that was not closed is first brought back to its last commit.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = open_file(path)?;
        let identity = identity(&file.metadata()?);
        let file = FileBackend::new(file).map_err(redb::Error::from)?;
        let mut builder = Builder::new();
        builder.set_cache_size(PAGE_CACHE_BYTES);
        let database = builder.create_with_backend(file).map_err(redb::Error::from)?;
        let mut store = Self { database, births: BTreeSet::new(), identity };
        store.births = store.read_births()?;
        Ok(store)
    }

    /// Whether its file is still the one at this path: a removed one can be written for ever, and
    /// nobody finds the rows.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|there| identity(&there) == self.identity)
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.births.len()
    }

    /// Gives every row to `take`, the youngest first.
    pub(super) fn read(&self, mut take: impl FnMut(Record)) -> Result<(), StoreError> {
        let reading = self.database.begin_read().map_err(redb::Error::from)?;
        let table = match reading.open_table(ROWS) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(redb::Error::from(error).into()),
        };
        for (_, key) in self.births.iter().rev() {
            if let Some(value) = table.get(&key.0).map_err(redb::Error::from)? {
                take(decode(*key, value.value())?);
            }
        }
        Ok(())
    }

    /// Adds rows, and drops the oldest ones beyond `max_entries` and those born at `oldest` or
    /// before, in one transaction: after a death in the middle of it all is as it was before.
    ///
    /// After an error the store is of no further use: what it knows may differ from the file.
    pub(super) fn write(
        &mut self,
        records: &[Record],
        max_entries: usize,
        oldest: SystemTime,
    ) -> Result<(), StoreError> {
        let oldest = millis(oldest);
        let is_over = |births: &BTreeSet<(u64, RowKey)>| {
            births
                .first()
                .copied()
                .filter(|(born, _)| births.len() > max_entries || *born <= oldest)
        };
        if records.is_empty() && is_over(&self.births).is_none() {
            return Ok(());
        }
        let writing = self.database.begin_write().map_err(redb::Error::from)?;
        {
            let mut table = writing.open_table(ROWS).map_err(redb::Error::from)?;
            for record in records {
                let value = encode(record);
                let before =
                    table.insert(&record.key.0, value.as_slice()).map_err(redb::Error::from)?;
                if let Some(before) = before {
                    self.births.remove(&(born_in(before.value())?, record.key));
                }
                self.births.insert((millis(record.born), record.key));
            }
            while let Some((born, key)) = is_over(&self.births) {
                self.births.remove(&(born, key));
                table.remove(&key.0).map_err(redb::Error::from)?;
            }
        }
        writing.commit().map_err(redb::Error::from)?;
        Ok(())
    }

    fn read_births(&self) -> Result<BTreeSet<(u64, RowKey)>, StoreError> {
        let reading = self.database.begin_read().map_err(redb::Error::from)?;
        let table = match reading.open_table(ROWS) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(BTreeSet::new()),
            Err(error) => return Err(redb::Error::from(error).into()),
        };
        let mut births = BTreeSet::new();
        for item in table.iter().map_err(redb::Error::from)? {
            let (key, value) = item.map_err(redb::Error::from)?;
            let key = RowKey(*key.value());
            let record = decode(key, value.value())?;
            births.insert((millis(record.born), key));
        }
        Ok(births)
    }
}

/// Moves a file out of the way, so that it can be looked at, and answers where it is.
pub(super) fn set_aside(path: &Path, now: SystemTime) -> io::Result<PathBuf> {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".damaged-{seconds}"));
    let mut aside = PathBuf::from(&name);
    let mut number = 1;
    // None that was set aside before is lost.
    while std::fs::symlink_metadata(&aside).is_ok() {
        number += 1;
        let mut other = name.clone();
        other.push(format!("-{number}"));
        aside = other.into();
    }
    std::fs::rename(path, &aside)?;
    Ok(aside)
}

/// What tells a file from all others: its device and its number there.
fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Opens the file for this user alone, with the folders that it is in.
fn open_file(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    // A named pipe would be waited for, perhaps for ever.
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path)?;
    begin_again(&file)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Empties a file whose maker died before it was a database: nothing stands behind its header, and
/// the header has no name yet. That is no damage, and nothing is lost.
fn begin_again(mut file: &File) -> io::Result<()> {
    const HEADER_BYTES: usize = 4096;
    let len = file.metadata()?.len();
    if len == 0 || len > MAX_NEW_BYTES || file.try_lock().is_err() {
        return Ok(());
    }
    let mut bytes = Vec::new();
    file.take(MAX_NEW_BYTES).read_to_end(&mut bytes)?;
    let is_zero = |bytes: Option<&[u8]>| bytes.is_none_or(|bytes| bytes.iter().all(|&b| b == 0));
    if is_zero(bytes.get(..8)) && is_zero(bytes.get(HEADER_BYTES..)) {
        file.set_len(0)?;
    }
    file.rewind()?;
    file.unlock()
}

fn encode(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + 4 * record.row.values.len() + SUM_BYTES);
    bytes.extend_from_slice(&millis(record.born).to_le_bytes());
    bytes.push(u8::from(record.row.truncated));
    record.row.values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    let sum = sum(&record.key, &bytes);
    bytes.extend_from_slice(&sum);
    bytes
}

/// The database sums its pages, but looks at the sums after an unclean end alone. A row with one
/// wrong bit must never be given out, so each has its own.
fn decode(key: RowKey, bytes: &[u8]) -> Result<Record, StoreError> {
    let damaged = || StoreError::Damaged("the sum over a row is wrong".into());
    let (body, found) = bytes.split_last_chunk::<SUM_BYTES>().ok_or_else(damaged)?;
    if sum(&key, body) != *found {
        return Err(damaged());
    }
    let (born, rest) = body.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (flags, values) = rest.split_first().ok_or_else(damaged)?;
    let (values, []) = values.as_chunks::<4>() else { return Err(damaged()) };
    let values = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
    Ok(Record {
        key,
        row: CachedRow { values, truncated: *flags != 0 },
        born: UNIX_EPOCH + Duration::from_millis(u64::from_le_bytes(*born)),
    })
}

fn born_in(value: &[u8]) -> Result<u64, StoreError> {
    let born = value.first_chunk().copied().map(u64::from_le_bytes);
    born.ok_or_else(|| StoreError::Damaged("a row is too short".into()))
}

fn sum(key: &RowKey, body: &[u8]) -> [u8; SUM_BYTES] {
    let whole = blake3::keyed_hash(&key.0, body);
    *whole.as_bytes().first_chunk().expect("16 is less than 32")
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::Held,
            // What the file tells contradicts its own length, or it is a file of something else.
            redb::Error::Io(error)
                if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) =>
            {
                Self::Damaged(error.to_string())
            }
            redb::Error::Io(error) => Self::System(error),
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => {
                Self::System(io::Error::other(error))
            }
            // Corruption, and what a file of ours could not bring about.
            other => Self::Damaged(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::KeySpace;

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
    fn a_file_whose_maker_died_at_once_is_begun_again() {
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
}
