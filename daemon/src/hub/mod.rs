//! Models by name: from the hub's name and revision to a folder with the files.
//!
//! ```text
//! name, revision ─▶ cache, whole? ─▶ listing ─▶ choice ─▶ lock ─▶ download… ─▶ publish ─▶ folder
//!                        │yes            │ no answer
//!                        ▼               ▼
//!                      folder      what the cache has, with a warning
//! ```
//! The cache is that of Python's `huggingface_hub`, in the same layout: each finds the files that the
//! other has fetched.

mod cache;
mod choice;
mod completeness;
mod download;
mod endpoint;
mod error;
mod listing;
mod name;
mod partial_blob;
mod patience;
mod settings;
#[cfg(test)]
mod tests;

pub use crate::hub::error::HubError;
pub(crate) use crate::hub::name::is_revision;
pub use crate::hub::settings::{HubSettings, Token};

use crate::ground::error_chain::chain;
use crate::hub::cache::ModelCache;
use crate::hub::completeness::Completeness;
use crate::hub::download::Download;
use crate::hub::endpoint::Endpoint;
use crate::hub::listing::{Content, ListedFile};
use crate::hub::name::HubModel;
use crate::hub::patience::Patience;
use std::path::PathBuf;

/// A report is sent after this many further bytes.
const REPORT_BYTES: u64 = 256 << 10;

/// Fetches models by name.
#[derive(Debug)]
pub(crate) struct Hub {
    settings: HubSettings,
    patience: Patience,
}

/// The progress of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HubProgress {
    /// The file that is being fetched, within the repository.
    pub(crate) file: String,
    /// Bytes of the whole model that are here. The number decreases if a file has to be fetched
    /// again.
    pub(crate) done_bytes: u64,
    /// Bytes of the whole model.
    pub(crate) total_bytes: u64,
}

impl Hub {
    /// Makes no request yet.
    #[must_use]
    pub(crate) const fn new(settings: HubSettings) -> Self {
        Self { settings, patience: Patience::DEFAULT }
    }

    /// The folder with the model's files, which are fetched if necessary. A pinned commit in the cache
    /// is used without a request. A branch or a tag is looked up; if there is no answer, its last
    /// known commit is used. The future can be dropped at any time: a later call continues with the
    /// bytes that have arrived. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// When the model is neither complete in the cache nor can be fetched.
    pub(crate) async fn folder(
        &self,
        name: &str,
        revision: &str,
        progress: &(dyn Fn(HubProgress) + Send + Sync),
    ) -> Result<PathBuf, HubError> {
        let model = HubModel::new(name, revision)?;
        if self.settings.cache.as_os_str().is_empty() {
            return Err(HubError::NoCache);
        }
        let cache = ModelCache::new(&self.settings.cache, &model);
        let (completeness, folder) = cache.completeness();
        if completeness == Completeness::Complete && model.is_pinned() {
            return Ok(folder);
        }
        let error = match self.settings.is_offline {
            true => HubError::Offline {
                name: model.name.clone(),
                revision: model.revision.clone(),
                cache: self.settings.cache.clone(),
            },
            false => match self.fetch(&model, &cache, progress).await {
                Ok(folder) => return Ok(folder),
                Err(error) => error,
            },
        };
        // A commit never changes, whatever the hub answers. If the hub answers for a branch, its last
        // known commit must not be used.
        let may_use_cache = model.is_pinned() || self.settings.is_offline || error.is_retryable();
        if completeness == Completeness::Incomplete || !may_use_cache {
            return Err(error);
        }
        let missing = (completeness == Completeness::Sufficient).then_some("perhaps small files");
        tracing::warn!(
            model = name,
            revision,
            folder = %folder.display(),
            missing,
            error = %chain(&error),
            "the copy of the model in the cache is used"
        );
        Ok(folder)
    }

    async fn fetch(
        &self,
        model: &HubModel,
        cache: &ModelCache,
        progress: &(dyn Fn(HubProgress) + Send + Sync),
    ) -> Result<PathBuf, HubError> {
        let endpoint = Endpoint::new(&self.settings, self.patience)?;
        let listing = endpoint.listing(model).await?;
        let commit = &*listing.commit;
        let chosen = choice::chosen(&listing.files)
            .map_err(|missing| HubError::NotAModel { name: model.name.clone(), missing })?;
        // After a wait for the lock another daemon may have fetched everything below.
        let _lock = cache.lock().await?;
        let mut files = Vec::with_capacity(chosen.len());
        for ListedFile { path, content } in chosen {
            let content = match content {
                Some(content) => content.clone(),
                None => endpoint.content(model, commit, path).await?,
            };
            files.push((path.clone(), content));
        }
        let is_here = |(file, content): &&(String, Content)| cache.has(commit, file, content);
        let mut tally = Tally {
            done_bytes: files.iter().filter(is_here).map(|(_, content)| content.size).sum(),
            total_bytes: files.iter().map(|(_, content)| content.size).sum(),
            progress,
        };
        let missing: Vec<_> = files.iter().filter(|file| !is_here(file)).collect();
        for (file, content) in missing {
            // Two files may have the same content.
            if cache.has(commit, file, content) {
                tally.done_bytes += content.size;
                continue;
            }
            let download = Download { endpoint: &endpoint, cache, model, commit, file, content };
            tally.download(&download).await?;
        }
        cache.publish(commit, &files, &listing.files)
    }
}

/// Sums up the bytes of all files for progress reports.
struct Tally<'a> {
    done_bytes: u64,
    total_bytes: u64,
    progress: &'a (dyn Fn(HubProgress) + Send + Sync),
}

impl Tally<'_> {
    async fn download(&mut self, download: &Download<'_>) -> Result<(), HubError> {
        let size = download.content.size;
        let mut last = None;
        let mut report = |done: u64| {
            let is_due = last.is_none_or(|last| done.abs_diff(last) >= REPORT_BYTES);
            if is_due || done == size {
                last = Some(done);
                (self.progress)(HubProgress {
                    file: download.file.to_owned(),
                    done_bytes: self.done_bytes + done,
                    total_bytes: self.total_bytes,
                });
            }
        };
        download.run(&mut report).await?;
        self.done_bytes += size;
        Ok(())
    }
}
