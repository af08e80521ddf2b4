//! A content on its way: bytes that have come so far, in a file beside the whole ones.

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

/// Dropped, it leaves what came for the next try.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    file: tokio::fs::File,
    done: u64,
    content: Content,
    sum: Sum,
}

/// The sum that names a content, over what has come of it.
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

impl Part {
    /// Opens what an earlier try has left, or nothing.
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

    /// How many bytes there are.
    pub(super) const fn done(&self) -> u64 {
        self.done
    }

    /// Puts bytes behind those that are there.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        if let Err(source) = self.file.write_all(bytes).await {
            return Err(self.failed(source));
        }
        self.sum.update(bytes);
        self.done += bytes.len() as u64;
        Ok(())
    }

    /// Begins again from nothing.
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

    /// Waits until what was written is in the file, for the next try to find.
    pub(super) async fn keep(&mut self) -> Result<(), HubError> {
        match self.file.flush().await {
            Ok(()) => Ok(()),
            Err(source) => Err(self.failed(source)),
        }
    }

    /// Checks the bytes against what they should be and gives them their name. If they are
    /// something else they are removed.
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
        // The name must not outlive the bytes if the machine stops now.
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

    /// Removes the bytes that are not what they should be.
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

    /// A disk that is full should not stay so for half a file.
    fn failed(&self, source: io::Error) -> HubError {
        self.remove();
        HubError::Cache { path: self.path.clone(), source }
    }

    fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Takes up what is there, unless it is no file or more than there should be.
fn open(path: &Path, size: u64, mut sum: Sum) -> io::Result<(File, u64, Sum)> {
    // A device could be read for ever.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::listing::BlobId;

    const HALF: &[u8] = b"half of ";
    const REST: &[u8] = b"it";

    fn content() -> Content {
        let hash = Sha256::digest([HALF, REST].concat());
        let id: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Content { id: BlobId::new(&id).unwrap(), size: 10 }
    }

    #[tokio::test]
    async fn bytes_of_two_tries_are_one_content() {
        let folder = tempfile::tempdir().unwrap();
        let (path, blob) = (folder.path().join("x.part"), folder.path().join("x"));
        let mut part = Part::open(path.clone(), &content()).await.unwrap();
        part.write(HALF).await.unwrap();
        part.keep().await.unwrap();
        drop(part);
        let mut part = Part::open(path.clone(), &content()).await.unwrap();
        assert_eq!(part.done(), 8);
        part.write(REST).await.unwrap();
        part.finish("f", &blob).await.unwrap();
        assert_eq!(std::fs::read(&blob).unwrap(), b"half of it");
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_small_file_is_what_git_names() {
        let folder = tempfile::tempdir().unwrap();
        let (path, blob) = (folder.path().join("x.part"), folder.path().join("x"));
        // What `printf 'half of it' | git hash-object --stdin` says.
        let id = BlobId::new("991a3df2be194555dc4abfaf6a082e87ec4c4497").unwrap();
        for (bytes, is_right) in [(b"half of it", true), (b"half of xt", false)] {
            let content = Content { id: id.clone(), size: 10 };
            let mut part = Part::open(path.clone(), &content).await.unwrap();
            part.write(bytes).await.unwrap();
            assert_eq!(part.finish("f", &blob).await.is_ok(), is_right);
        }
    }

    #[tokio::test]
    async fn a_part_never_gets_the_name_of_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (path, blob) = (folder.path().join("x.part"), folder.path().join("x"));
        for (bytes, wrong) in [(HALF, "size"), (b"other it..", "hash")] {
            let mut part = Part::open(path.clone(), &content()).await.unwrap();
            part.write(bytes).await.unwrap();
            let error = part.finish("f", &blob).await.unwrap_err();
            assert!(matches!(error, HubError::Mismatch { what, .. } if what == wrong), "{error:?}");
            assert!(!blob.exists() && !path.exists());
        }
    }

    #[tokio::test]
    async fn a_full_disk_is_told_and_not_left_full() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.part");
        std::fs::write(&path, "what came before").unwrap();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let file = tokio::fs::File::from_std(full);
        let mut part = Part {
            path: path.clone(),
            file,
            done: 0,
            content: content(),
            sum: Sum::of(&content()),
        };
        part.write(HALF).await.unwrap();
        let error = part.keep().await.unwrap_err();
        assert!(matches!(error, HubError::Cache { .. }), "{error:?}");
        assert!(error.to_string().contains("make room"), "{error}");
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_no_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.part");
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert_eq!(Part::open(path, &content()).await.unwrap().done(), 0);
    }
}
