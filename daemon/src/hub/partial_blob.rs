//! A blob that is being fetched: the bytes so far, in a file beside the complete ones.

#[cfg(test)]
mod tests;

use crate::hub::cache::create_parent;
use crate::hub::error::HubError;
use crate::hub::listing::Content;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::task::spawn_blocking;

/// The bytes so far. Dropping it keeps them for the next try.
#[derive(Debug)]
pub(super) struct PartialBlob {
    path: PathBuf,
    file: tokio::fs::File,
    done: u64,
    content: Content,
    sum: Sum,
}

impl PartialBlob {
    /// Continues with the bytes of an earlier try, or begins with none.
    pub(super) async fn open(path: PathBuf, content: &Content) -> Result<Self, HubError> {
        create_parent(&path)?;
        let error = HubError::cache(&path);
        let (at, content) = (path.clone(), content.clone());
        let (sum, size) = (Sum::of(&content), content.size);
        let opened = spawn_blocking(move || open(&at, size, sum))
            .await
            .unwrap_or_else(|gone| Err(io::Error::other(gone)));
        let (file, done, sum) = opened.map_err(error)?;
        Ok(Self { path, file: tokio::fs::File::from_std(file), done, content, sum })
    }

    /// How many bytes have arrived.
    pub(super) const fn done(&self) -> u64 {
        self.done
    }

    /// Appends bytes.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        if let Err(source) = self.file.write_all(bytes).await {
            return Err(self.failed(source));
        }
        self.sum.update(bytes);
        self.done += bytes.len() as u64;
        Ok(())
    }

    /// Begins again without any bytes.
    pub(super) async fn restart(&mut self) -> Result<(), HubError> {
        let emptied = async {
            self.file.flush().await?;
            self.file.set_len(0).await?;
            self.file.rewind().await
        };
        if let Err(source) = emptied.await {
            return Err(self.failed(source));
        }
        self.done = 0;
        self.sum = Sum::of(&self.content);
        Ok(())
    }

    /// Flushes the bytes to the file, for the next try.
    pub(super) async fn keep(&mut self) -> Result<(), HubError> {
        match self.file.flush().await {
            Ok(()) => Ok(()),
            Err(source) => Err(self.failed(source)),
        }
    }

    /// Checks size and hash of the bytes, and gives them their name. Wrong bytes are removed.
    pub(super) async fn finish(mut self, file: &str, blob: &Path) -> Result<(), HubError> {
        let content = self.content.clone();
        if self.done != content.size {
            return Err(self.mismatch(
                file,
                "size",
                self.done.to_string(),
                content.size.to_string(),
            ));
        }
        let found = self.sum.clone().hex();
        if let Some(expected) = content.id.sha256().or(content.id.git_sha1())
            && !expected.eq_ignore_ascii_case(&found)
        {
            return Err(self.mismatch(file, "hash", found, expected.to_owned()));
        }
        // Synced first, so that after a power failure the name does not exist without the bytes.
        let written = async {
            self.file.flush().await?;
            self.file.sync_all().await?;
            tokio::fs::rename(&self.path, blob).await
        };
        if let Err(source) = written.await {
            return Err(self.failed(source));
        }
        Ok(())
    }

    /// Removes wrong bytes, and returns the error.
    pub(super) fn mismatch(
        &self,
        file: &str,
        what: &'static str,
        found: String,
        expected: String,
    ) -> HubError {
        self.remove();
        HubError::Mismatch { file: file.to_owned(), what, found, expected }
    }

    /// Removes the bytes, so that a full disk does not stay full, and returns the error.
    fn failed(&self, source: io::Error) -> HubError {
        self.remove();
        HubError::Cache { path: self.path.clone(), source }
    }

    fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The hash that names a content, over the bytes so far.
#[derive(Debug, Clone)]
enum Sum {
    Sha256(Sha256),
    /// As git names its blobs: <https://git-scm.com/book/en/v2/Git-Internals-Git-Objects>.
    Git(Sha1),
}

impl Sum {
    fn of(content: &Content) -> Self {
        if content.id.git_sha1().is_some() {
            return Self::Git(Sha1::new_with_prefix(format!("blob {}\0", content.size)));
        }
        Self::Sha256(Sha256::new())
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(sum) => sum.update(bytes),
            Self::Git(sum) => sum.update(bytes),
        }
    }

    fn hex(self) -> String {
        let bytes = match self {
            Self::Sha256(sum) => sum.finalize().to_vec(),
            Self::Git(sum) => sum.finalize().to_vec(),
        };
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Opens the file and hashes its bytes. It is emptied if it is longer than the content.
fn open(path: &Path, size: u64, mut sum: Sum) -> io::Result<(File, u64, Sum)> {
    // Reading a device could take forever.
    if std::fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file()) {
        std::fs::remove_file(path)?;
    }
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    if file.metadata()?.len() > size {
        file.set_len(0)?;
    }
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((file, done, sum)),
            count => {
                sum.update(&buffer[..count]);
                done += count as u64;
            }
        }
    }
}
