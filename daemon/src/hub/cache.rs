//! The cache that Python's `huggingface_hub` shares: `blobs`, `refs`, `snapshots`, `.no_exist`.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::HubError;
use super::names::is_commit;

/// The part of the cache that belongs to one model.
#[derive(Debug)]
pub(super) struct ModelCache {
    /// `models--org--name`.
    pub(super) folder: PathBuf,
    /// Where Python and we lock a blob while it is written.
    locks: PathBuf,
}

impl ModelCache {
    /// The name has been checked.
    pub(super) fn new(root: &Path, name: &str) -> Self {
        let folder = format!("models--{}", name.replace('/', "--"));
        Self { locks: root.join(".locks").join(&folder), folder: root.join(folder) }
    }

    /// The folder of a commit, whether it is there or not.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Where the content with this etag lies.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// What guards the content with this etag while it is written.
    pub(super) fn lock(&self, etag: &str) -> PathBuf {
        self.locks.join(format!("{etag}.lock"))
    }

    /// What is known to be missing from a commit.
    pub(super) fn absence(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit).join(file)
    }

    /// The commit that a revision was when it was last asked for.
    pub(super) fn commit_of(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = std::fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        let commit = text.trim();
        // It becomes part of a path: what is no hash is not believed.
        is_commit(commit).then(|| commit.to_owned())
    }

    /// Remembers what commit a branch or tag is.
    pub(super) fn set_commit_of(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        // Unchanged, it is left alone: a cache that can only be read can be used.
        if is_commit(revision) || self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        let write = || {
            let parent = path.parent().unwrap_or(&self.folder);
            std::fs::create_dir_all(parent)?;
            // Renamed into place, so that nobody reads half of it.
            let fresh = parent.join(format!(".{}.emberd", std::process::id()));
            File::create(&fresh)?.write_all(commit.as_bytes())?;
            std::fs::rename(&fresh, &path)
        };
        write().map_err(|source| HubError::CannotWrite { path: path.clone(), source })
    }

    /// Makes a whole blob a file of the commit.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(file);
        let up = "../".repeat(2 + file.matches('/').count());
        let write = || {
            let parent = path.parent().unwrap_or(&self.folder);
            std::fs::create_dir_all(parent)?;
            let fresh = parent.join(format!(".{}.emberd", std::process::id()));
            match std::fs::remove_file(&fresh) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            std::os::unix::fs::symlink(format!("{up}blobs/{etag}"), &fresh)?;
            std::fs::rename(&fresh, &path)
        };
        write().map_err(|source| HubError::CannotWrite { path: path.clone(), source })
    }

    /// Remembers that the commit has no such file, as Python does. No harm if it cannot.
    pub(super) fn mark_absent(&self, commit: &str, file: &str) {
        let path = self.absence(commit, file);
        if path.exists() {
            return;
        }
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        if let Err(error) = made.and_then(|()| File::create(&path).map(drop)) {
            tracing::debug!(path = %path.display(), %error, "cannot note that a file does not exist");
        }
    }
}
