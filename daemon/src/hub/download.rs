//! One file from the hub into the cache: gone on with where it was cut, whole or not at all.

use std::fs::TryLockError;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_RANGE, RANGE};
use sha2::{Digest, Sha256};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

use super::HubError;
use super::api::{Api, Remote};
use super::cache::ModelCache;
use super::explain::chain;
use super::tries::Tries;

/// Between two looks at a lock that another process holds.
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// A file that is fetched.
pub(super) struct Download<'a> {
    pub(super) api: &'a Api,
    pub(super) cache: &'a ModelCache,
    pub(super) name: &'a str,
    pub(super) commit: &'a str,
    pub(super) remote: &'a Remote,
    /// Hears how many bytes of this file are there.
    pub(super) progress: &'a (dyn Fn(u64) + Send + Sync),
}

impl Download<'_> {
    /// Fetches the file, unless its content is there already.
    pub(super) async fn run(&self) -> Result<(), HubError> {
        let blob = self.cache.blob(&self.remote.etag);
        if blob.exists() {
            return Ok(());
        }
        // Python and we write to the same file under the same lock, so each goes on with what
        // the other left. Held until this returns; the system gives it back if we die.
        let _lock = self.lock().await?;
        if blob.exists() {
            return Ok(());
        }
        let part = PathBuf::from(format!("{}.incomplete", blob.display()));
        create_parent(&part)?;
        let mut tries = Tries::new(&self.api.patience, self.api.patience.tries);
        let mut furthest = length(&part)?;
        loop {
            let result = self.attempt(&part).await;
            let Err(error) = result else { break };
            // A hub that always starts anew and always breaks off is not tried for ever: only
            // what was not there before counts.
            let reached = length(&part)?;
            if reached > furthest {
                furthest = reached;
                tries.reset();
            }
            tries.after(error).await?;
        }
        std::fs::rename(&part, &blob).map_err(|source| cannot_write(&blob, source))
    }

    /// Asks for what is missing and checks the whole.
    async fn attempt(&self, part: &Path) -> Result<(), HubError> {
        let size = self.remote.size;
        let mut there = length(part)?;
        if there > size {
            remove(part)?;
            there = 0;
        }
        (self.progress)(there);
        if there < size || !part.exists() {
            self.fetch(part, there).await?;
        }
        if let Err(what) = self.verify(part).await? {
            remove(part)?;
            return Err(self.mismatch(what));
        }
        Ok(())
    }

    async fn fetch(&self, part: &Path, mut there: u64) -> Result<(), HubError> {
        let Remote { file, size, .. } = self.remote;
        let mut request = self.api.fetching.get(self.api.url(self.name, self.commit, file)?);
        if there > 0 {
            request = request.header(RANGE, format!("bytes={there}-"));
        }
        let mut response = request.send().await.map_err(|error| self.api.unreachable(&error))?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            remove(part)?;
            return Err(self.mismatch("the rest of it cannot be had".into()));
        }
        self.api.check(self.name, self.commit, file, &response)?;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
            let expected = format!("bytes {there}-");
            if there == 0 || !range.is_some_and(|range| range.starts_with(&expected)) {
                remove(part)?;
                return Err(self.mismatch("another part of it came than was asked for".into()));
            }
        } else {
            // The whole comes, whatever was asked for.
            there = 0;
        }
        if let Some(coming) = response.content_length().filter(|coming| there + coming != *size) {
            return Err(
                self.mismatch(format!("{} bytes come where {size} should be", there + coming))
            );
        }
        let mut out = open(part, there).await.map_err(|source| cannot_write(part, source))?;
        let result = loop {
            match response.chunk().await {
                Ok(Some(bytes)) => {
                    there += bytes.len() as u64;
                    if there > *size {
                        break Err(self.mismatch(format!("more than {size} bytes come")));
                    }
                    if let Err(source) = out.write_all(&bytes).await {
                        break Err(cannot_write(part, source));
                    }
                    (self.progress)(there);
                }
                Ok(None) if there == *size => break Ok(()),
                Ok(None) => break Err(self.cut_short(there, "the connection was closed".into())),
                Err(error) => break Err(self.cut_short(there, chain(&error))),
            }
        };
        // What a file of the runtime has taken is written later: without this, what is counted
        // afterwards is less than what came.
        out.flush().await.map_err(|source| cannot_write(part, source))?;
        if matches!(result, Err(HubError::Mismatch { .. })) {
            remove(part)?;
        } else if result.is_ok() {
            // On the disk before it gets the name that says it is whole.
            out.sync_all().await.map_err(|source| cannot_write(part, source))?;
        }
        result
    }

    /// Compares the file with its announced size and, where the etag is one, its SHA-256. (Small
    /// files have a git hash for an etag, SHA-1 over a header and the content: their size has to
    /// do.)
    async fn verify(&self, part: &Path) -> Result<Result<(), String>, HubError> {
        let (there, size) = (length(part)?, self.remote.size);
        if there != size {
            return Ok(Err(format!("{there} bytes where {size} should be")));
        }
        let etag = self.remote.etag.to_ascii_lowercase();
        if etag.len() != 64 || !etag.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Ok(()));
        }
        let path = part.to_owned();
        // Seconds for a large file: not on the runtime's threads.
        let hashed = tokio::task::spawn_blocking(move || sha256(&path)).await;
        let hash = hashed
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|source| cannot_write(part, source))?;
        Ok(if hash == etag { Ok(()) } else { Err(format!("its SHA-256 is {hash}")) })
    }

    async fn lock(&self) -> Result<std::fs::File, HubError> {
        let path = self.cache.lock(&self.remote.etag);
        create_parent(&path)?;
        let file = std::fs::File::options().create(true).append(true).open(&path);
        let file = file.map_err(|source| cannot_write(&path, source))?;
        let mut has_said = false;
        loop {
            // Looked at again and again rather than waited for: a thread that waits cannot be
            // called back when nobody wants the model any more.
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(source)) => return Err(cannot_write(&path, source)),
                Err(TryLockError::WouldBlock) if !has_said => {
                    tracing::info!(file = self.remote.file, "another process fetches this file");
                    has_said = true;
                }
                Err(TryLockError::WouldBlock) => {}
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
    }

    fn mismatch(&self, what: String) -> HubError {
        HubError::Mismatch { file: self.remote.file.clone(), what }
    }

    fn cut_short(&self, done_bytes: u64, why: String) -> HubError {
        let Remote { file, size, .. } = self.remote;
        HubError::CutShort { file: file.clone(), done_bytes, total_bytes: *size, why }
    }
}

async fn open(part: &Path, there: u64) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(part).await?;
    // Either nothing is dropped, or all of it.
    file.set_len(there).await?;
    Ok(file)
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut file = std::fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = io::Read::read(&mut file, &mut buffer)?;
        if count == 0 {
            return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hasher.update(&buffer[..count]);
    }
}

fn length(path: &Path) -> Result<u64, HubError> {
    match std::fs::metadata(path) {
        Ok(facts) => Ok(facts.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(source) => Err(cannot_write(path, source)),
    }
}

fn remove(path: &Path) -> Result<(), HubError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot_write(path, error)),
        _ => Ok(()),
    }
}

fn create_parent(path: &Path) -> Result<(), HubError> {
    path.parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .map_err(|source| cannot_write(path, source))
}

fn cannot_write(path: &Path, source: io::Error) -> HubError {
    HubError::CannotWrite { path: path.to_owned(), source }
}
