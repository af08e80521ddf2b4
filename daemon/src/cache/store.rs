//! Rows in a file: the layout of a record, and the operations on the file. It blocks, and only the
//! writer's thread uses it.

#[cfg(test)]
mod tests;

use crate::cache::key::RowKey;
use crate::cache::row::CachedRow;
use crate::ground::time::unix_millis;
use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Seek};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The rows, by key. Another layout gets another name, and old tables are ignored.
const ROWS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("rows-1");

/// Memory for pages of the file. It is small because the rows are kept in memory elsewhere.
const PAGE_CACHE_BYTES: usize = 4 << 20;

/// A new database is smaller than this.
const MAX_NEW_BYTES: u64 = 2 << 20;

/// A record is: time of computation, flags, values, and a checksum over them.
const HEAD_BYTES: usize = 8 + 1;
const SUM_BYTES: usize = 16;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// Its content is damaged.
    #[error("the file is damaged: {0}")]
    Damaged(Damage),
    /// It was removed, or another file took its place.
    #[error("the file was removed or replaced; a new one is created")]
    Removed,
    /// Another process uses it.
    #[error("another process holds the file: give each daemon its own with embedding_cache.file")]
    Held,
    /// The system refused an operation.
    #[error(
        "the file cannot be used: make room and give the daemon the right to write it, or set \
         embedding_cache.file to another place, or embedding_cache.persist_to_disk = false"
    )]
    System(#[from] io::Error),
}

/// How the content of the file is damaged.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    #[error("the checksum of a row is wrong")]
    Checksum,
    #[error("a row is too short")]
    ShortRow,
    #[error("the database panicked")]
    Panic,
    /// It ends too early, or is not that of a database.
    #[error("{0}")]
    Content(io::Error),
    /// The database found it.
    #[error("{0}")]
    Database(redb::Error),
}

/// A row as the file keeps it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) key: RowKey,
    pub(super) row: CachedRow,
    /// When it was computed. Not when it expires: a changed time to live applies to old rows too.
    pub(super) born: SystemTime,
}

/// An open file, and its rows by age.
pub(super) struct Store {
    database: Database,
    births: BTreeSet<(u64, RowKey)>,
    /// Of the open file.
    identity: (u64, u64),
}

impl Store {
    /// Opens or creates a file that only its user can read, and checks every record in it. A file
    /// that was not closed is first rolled back to its last commit.
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

    /// Whether its file is still the one at this path. Writing to a removed file succeeds, but
    /// nobody would find the rows.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|there| identity(&there) == self.identity)
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.births.len()
    }

    /// Passes every row to `take`, the youngest first.
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

    /// Adds rows, and drops the oldest ones beyond `max_entries` and those computed at `oldest` or
    /// before, in one transaction: a crash in the middle leaves the file unchanged.
    ///
    /// After an error the store must not be used any more: its index may differ from the file.
    pub(super) fn write(
        &mut self,
        records: &[Record],
        max_entries: usize,
        oldest: SystemTime,
    ) -> Result<(), StoreError> {
        let oldest = unix_millis(oldest);
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
                self.births.insert((unix_millis(record.born), record.key));
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
            births.insert((unix_millis(record.born), key));
        }
        Ok(births)
    }
}

/// Renames a file so that a person can inspect it. Returns its new path.
pub(super) fn set_aside(path: &Path, now: SystemTime) -> io::Result<PathBuf> {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".damaged-{seconds}"));
    let mut aside = PathBuf::from(&name);
    let mut number = 1;
    // A file that was set aside before is never overwritten.
    while std::fs::symlink_metadata(&aside).is_ok() {
        number += 1;
        let mut other = name.clone();
        other.push(format!("-{number}"));
        aside = other.into();
    }
    std::fs::rename(path, &aside)?;
    Ok(aside)
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::Held,
            // The file is shorter than it claims, or belongs to another program.
            redb::Error::Io(error)
                if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) =>
            {
                Self::Damaged(Damage::Content(error))
            }
            redb::Error::Io(error) => Self::System(error),
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => {
                Self::System(io::Error::other(error))
            }
            // Corruption, and errors that an intact file of ours cannot cause.
            other => Self::Damaged(Damage::Database(other)),
        }
    }
}

/// What identifies a file: its device and inode.
fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Opens the file so that only this user can read it, and creates its folders.
fn open_file(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    // Opening a named pipe could block forever.
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path)?;
    reset_unfinished(&file)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Empties a file whose creator died before it was a database: the file has no magic number yet, and
/// is empty after its header. That is not damage, and nothing is lost.
fn reset_unfinished(mut file: &File) -> io::Result<()> {
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
    bytes.extend_from_slice(&unix_millis(record.born).to_le_bytes());
    bytes.push(u8::from(record.row.truncated));
    record.row.values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    let sum = sum(&record.key, &bytes);
    bytes.extend_from_slice(&sum);
    bytes
}

/// The database has checksums over its pages, but verifies them only after a crash. A row with a
/// wrong bit must never be used, so each row has a checksum of its own.
fn decode(key: RowKey, bytes: &[u8]) -> Result<Record, StoreError> {
    let damaged = || StoreError::Damaged(Damage::Checksum);
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
    born.ok_or(StoreError::Damaged(Damage::ShortRow))
}

fn sum(key: &RowKey, body: &[u8]) -> [u8; SUM_BYTES] {
    let whole = blake3::keyed_hash(&key.0, body);
    *whole.as_bytes().first_chunk().expect("16 is less than 32")
}
