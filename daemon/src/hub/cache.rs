//! One model's folder in the cache that all programs of the user share.
//!
//! ```text
//! models--org--name/blobs/ID                  contents; `ID.part` while they are fetched
//!                   refs/main                 the last known commit of a branch or tag
//!                   snapshots/COMMIT/FILE     links to contents
//!                   .no_exist/COMMIT/FILE     empty: the commit has no such file
//! .locks/models--org--name/emberd.lock        held while a daemon fetches
//! ```
//! A content gets its name when it is complete, and a snapshot's `config.json` is linked last.

use crate::hub::completeness;
use crate::hub::completeness::Completeness;
use crate::hub::error::HubError;
use crate::hub::listing::{BlobId, Content, ListedFile};
use crate::hub::name::{HubModel, is_commit};
use hf_hub::Cache;
use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Component, Path, PathBuf};

/// The folder of one model in the cache.
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
    /// Does not access the disk yet.
    pub(super) fn new(cache: &Path, model: &HubModel) -> Self {
        Self { cache: Cache::new(cache.to_owned()), model: model.clone() }
    }

    /// How complete the model is at its last known revision, and its folder.
    pub(super) fn completeness(&self) -> (Completeness, PathBuf) {
        let Some(commit) = self.commit() else {
            return (Completeness::Incomplete, PathBuf::new());
        };
        let snapshot = self.snapshot(&commit);
        (completeness::of(&snapshot, &self.absent(&commit)), snapshot)
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo().pointer_path(commit)
    }

    /// The path of a content once it is complete.
    pub(super) fn blob(&self, id: &BlobId) -> PathBuf {
        self.repo().blob_path(id.as_str())
    }

    /// The path of a content until it is complete.
    pub(super) fn part(&self, id: &BlobId) -> PathBuf {
        self.blob(id).with_extension("part")
    }

    /// Whether the content is in the cache, under its own name or through the snapshot's link (other
    /// programs may name contents differently).
    pub(super) fn has(&self, commit: &str, file: &str, content: &Content) -> bool {
        let is_it = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.len() == content.size);
        is_it(&self.snapshot(commit).join(file)) || is_it(&self.blob(&content.id))
    }

    /// Waits until no other daemon fetches this model.
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
        tracing::info!(model = self.model.name, "waiting for another fetch of this model");
        // A detached thread, so that this daemon can stop while another one still fetches. The
        // runtime would wait for a blocking task of its own.
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

    /// Links complete contents into a snapshot, and then sets the ref to it.
    pub(super) fn publish(
        &self,
        commit: &str,
        files: &[(String, Content)],
        listed: &[ListedFile],
    ) -> Result<PathBuf, HubError> {
        let snapshot = self.snapshot(commit);
        self.note_absent(commit, files, listed)?;
        // The files that mark a model are linked last, so that an unfinished snapshot is never taken
        // for a complete one.
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

    /// Leaves a mark for each optional file that does not exist in the repository.
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
        let optional = completeness::optional_files(folders.iter().map(String::as_str));
        for file in optional.iter().filter(|file| !paths.contains(&***file)) {
            let mark = self.absent(commit).join(file);
            create_parent(&mark)?;
            fs::write(&mark, "").map_err(HubError::cache(&mark))?;
        }
        Ok(())
    }

    /// The commit of the revision, as far as it is known here.
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

/// Creates the folder of a file.
pub(super) fn create_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(HubError::cache(parent))
}

/// Replaces `pointer` by a link to `target`, atomically. The link is relative, so that the cache can
/// be moved.
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
    fn a_torn_ref_is_not_a_commit() {
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
