//! One model's folder in the cache that all programs of the user share.
//!
//! ```text
//! models--org--name/blobs/ID                  contents; `ID.part` while they come
//!                   refs/main                 the commit that a branch or tag was at last
//!                   snapshots/COMMIT/FILE     links to contents
//!                   .no_exist/COMMIT/FILE     empty: the commit has no such file
//! .locks/models--org--name/emberd.lock        held while a daemon fetches
//! ```
//! A content gets its name when it is whole, and a snapshot's `config.json` comes last.

use crate::hub::error::HubError;
use crate::hub::listing::{BlobId, Content, ListedFile};
use crate::hub::name::{HubModel, is_commit};
use crate::hub::whole;
use crate::hub::whole::Held;
use hf_hub::Cache;
use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Component, Path, PathBuf};

/// Where one model is kept.
#[derive(Debug)]
pub(super) struct ModelCache {
    cache: Cache,
    model: HubModel,
}

/// While it lives, no other daemon fetches this model into this cache.
#[derive(Debug)]
pub(super) struct FetchLock {
    _file: File,
}

impl ModelCache {
    /// Looks at nothing yet.
    pub(super) fn new(cache: &Path, model: &HubModel) -> Self {
        Self { cache: Cache::new(cache.to_owned()), model: model.clone() }
    }

    /// What there is of the model at its revision, as far as is known here.
    pub(super) fn held(&self) -> (Held, PathBuf) {
        let Some(commit) = self.commit() else { return (Held::Parts, PathBuf::new()) };
        let snapshot = self.snapshot(&commit);
        (whole::held(&snapshot, &self.absent(&commit)), snapshot)
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo().pointer_path(commit)
    }

    /// Where a content is, or will be when it is whole.
    pub(super) fn blob(&self, id: &BlobId) -> PathBuf {
        self.repo().blob_path(id.as_str())
    }

    /// Where a content is until it is whole.
    pub(super) fn part(&self, id: &BlobId) -> PathBuf {
        self.blob(id).with_extension("part")
    }

    /// Whether the content is here, under its own name or behind a snapshot's file (which a program
    /// may have named otherwise).
    pub(super) fn has(&self, commit: &str, file: &str, content: &Content) -> bool {
        let is_it = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.len() == content.size);
        is_it(&self.snapshot(commit).join(file)) || is_it(&self.blob(&content.id))
    }

    /// Waits until nobody else fetches this model.
    pub(super) async fn lock(&self) -> Result<FetchLock, HubError> {
        let path = self.cache.path().join(".locks").join(self.folder_name()).join("emberd.lock");
        create_parent(&path)?;
        let error = HubError::cache(&path);
        let file = match File::create(&path) {
            Ok(file) => file,
            Err(cause) => return Err(error(cause)),
        };
        match file.try_lock() {
            Ok(()) => return Ok(FetchLock { _file: file }),
            Err(TryLockError::Error(cause)) => return Err(error(cause)),
            Err(TryLockError::WouldBlock) => {}
        }
        tracing::info!(model = self.model.name, "another fetch of this model is waited for");
        // A thread that nobody waits for: the daemon can stop while another one still fetches,
        // which it could not with a blocking task of the runtime.
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let wait = move || {
            let locked = file.lock();
            let _ = sender.send(locked.map(|()| FetchLock { _file: file }));
        };
        let spawned = std::thread::Builder::new().name("hub-lock".into()).spawn(wait);
        if let Err(cause) = spawned {
            return Err(error(cause));
        }
        let gone = || io::Error::other("the thread that waited for the lock ended");
        receiver.await.unwrap_or_else(|_| Err(gone())).map_err(error)
    }

    /// Makes the snapshot of whole contents, and then the ref to it.
    pub(super) fn publish(
        &self,
        commit: &str,
        files: &[(String, Content)],
        listed: &[ListedFile],
    ) -> Result<PathBuf, HubError> {
        let snapshot = self.snapshot(commit);
        self.note_absent(commit, files, listed)?;
        // What tells that a model is there comes last, so that a snapshot on its way is never
        // taken for whole.
        let rank = |file: &str| match file {
            "config.json" => 2,
            "modules.json" => 1,
            _ => 0,
        };
        let mut files: Vec<_> = files.iter().collect();
        files.sort_by_key(|(file, _)| rank(file));
        for (file, content) in files {
            let pointer = snapshot.join(file);
            if !fs::metadata(&pointer).is_ok_and(|meta| meta.len() == content.size) {
                link(&self.blob(&content.id), &pointer).map_err(HubError::cache(&pointer))?;
            }
        }
        if !self.model.is_pinned() && self.commit().as_deref() != Some(commit) {
            let error = HubError::cache(&snapshot);
            self.repo().create_ref(commit).map_err(error)?;
        }
        Ok(snapshot)
    }

    /// Leaves a mark for each file that could be missed in silence and does not exist.
    fn note_absent(
        &self,
        commit: &str,
        files: &[(String, Content)],
        listed: &[ListedFile],
    ) -> Result<(), HubError> {
        let paths: BTreeSet<_> = listed.iter().map(|file| &*file.path).collect();
        let folder = |(path, _): &'_ (String, Content)| {
            path.rsplit_once('/').map_or_else(String::new, |(folder, _)| folder.to_owned())
        };
        let folders: BTreeSet<_> = files.iter().map(folder).collect();
        let optional = whole::optional_files(folders.iter().map(String::as_str));
        for file in optional.iter().filter(|file| !paths.contains(&***file)) {
            let mark = self.absent(commit).join(file);
            create_parent(&mark)?;
            fs::write(&mark, "").map_err(HubError::cache(&mark))?;
        }
        Ok(())
    }

    /// The commit that the revision is, or was when it was last asked for.
    fn commit(&self) -> Option<String> {
        if self.model.is_pinned() {
            return Some(self.model.revision.clone());
        }
        let file =
            self.cache.path().join(self.folder_name()).join("refs").join(&self.model.revision);
        let commit = fs::read_to_string(file).ok()?.trim().to_owned();
        is_commit(&commit).then_some(commit)
    }

    fn absent(&self, commit: &str) -> PathBuf {
        self.cache.path().join(self.folder_name()).join(".no_exist").join(commit)
    }

    fn folder_name(&self) -> String {
        self.model.at(&self.model.revision).folder_name()
    }

    fn repo(&self) -> hf_hub::CacheRepo {
        self.cache.repo(self.model.at(&self.model.revision))
    }
}

/// Makes the folder that a file will be in.
pub(super) fn create_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(HubError::cache(parent))
}

/// A link at `pointer` in place of whatever is there, at no moment half made. It is relative, so
/// that the cache can be moved.
fn link(target: &Path, pointer: &Path) -> io::Result<()> {
    let folder = pointer.parent().unwrap_or(pointer);
    fs::create_dir_all(folder)?;
    let common = folder.components().zip(target.components()).take_while(|(a, b)| a == b).count();
    let up = folder.components().skip(common).map(|_| Component::ParentDir);
    let relative: PathBuf = up.chain(target.components().skip(common)).collect();
    let new = folder.join(".emberd.link");
    let _ = fs::remove_file(&new);
    std::os::unix::fs::symlink(relative, &new)?;
    fs::rename(&new, pointer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn cache(folder: &Path) -> ModelCache {
        ModelCache::new(folder, &HubModel::new("org/name", "main").unwrap())
    }

    #[test]
    fn a_link_is_relative_and_replaces_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let (blob, pointer) =
            (folder.path().join("blobs/x"), folder.path().join("snapshots/c/1/f"));
        fs::create_dir_all(blob.parent().unwrap()).unwrap();
        fs::create_dir_all(pointer.parent().unwrap()).unwrap();
        fs::write(&blob, "whole").unwrap();
        std::os::unix::fs::symlink("nowhere", &pointer).unwrap();
        link(&blob, &pointer).unwrap();
        assert_eq!(fs::read_link(&pointer).unwrap(), Path::new("../../../blobs/x"));
        assert_eq!(fs::read_to_string(&pointer).unwrap(), "whole");
    }

    #[test]
    fn a_torn_ref_is_no_commit() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let refs = folder.path().join("models--org--name/refs");
        fs::create_dir_all(&refs).unwrap();
        fs::write(refs.join("main"), format!("{COMMIT}\n")).unwrap();
        assert_eq!(cache.commit().as_deref(), Some(COMMIT));
        for torn in ["", "0123", "../../../etc"] {
            fs::write(refs.join("main"), torn).unwrap();
            assert_eq!(cache.commit(), None, "{torn:?}");
        }
    }

    #[tokio::test]
    async fn one_fetch_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let first = cache.lock().await.unwrap();
        let mut second = std::pin::pin!(cache.lock());
        let polled = std::future::poll_fn(|context| {
            std::task::Poll::Ready(second.as_mut().poll(context).is_pending())
        });
        assert!(polled.await, "the lock is held");
        drop(first);
        second.await.unwrap();
    }
}
