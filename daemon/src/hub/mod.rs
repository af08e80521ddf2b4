//! Models by name: from the hub's name and revision to a folder with the files.
//!
//! ```text
//! name, revision ─▶ cache, whole? ─▶ listing ─▶ choice ─▶ lock ─▶ download… ─▶ publish ─▶ folder
//!                        │yes            │ no answer
//!                        ▼               ▼
//!                      folder      what the cache has, with a warning
//! ```
//! The cache is the one that Python's `huggingface_hub` keeps, in the same layout: what either has
//! fetched the other finds.

pub(crate) mod cache;
pub(crate) mod choice;
pub(crate) mod download;
pub(crate) mod endpoint;
pub(crate) mod error;
pub(crate) mod http_date;
pub(crate) mod listing;
pub(crate) mod name;
pub(crate) mod part;
pub(crate) mod patience;
pub(crate) mod settings;
#[cfg(test)]
pub(crate) mod stand_in;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod whole;

pub use crate::hub::error::HubError;
pub(crate) use crate::hub::name::is_revision;
pub use crate::hub::settings::{HubSettings, Token};

use crate::hub::cache::ModelCache;
use crate::hub::download::Download;
use crate::hub::endpoint::Endpoint;
use crate::hub::listing::{Content, ListedFile};
use crate::hub::name::HubModel;
use crate::hub::patience::Patience;
use crate::hub::whole::Held;
use std::path::PathBuf;

/// A report is worth this much news.
const REPORT_BYTES: u64 = 256 << 10;

/// Fetches models by name.
#[derive(Debug)]
pub(crate) struct Hub {
    settings: HubSettings,
    patience: Patience,
}

/// How far a fetch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HubProgress {
    /// The file that is coming, within the repository.
    pub(crate) file: String,
    /// Bytes of the whole model that are there. They can become fewer, when a file has to be
    /// begun again.
    pub(crate) done_bytes: u64,
    /// Bytes of the whole model.
    pub(crate) total_bytes: u64,
}

impl Hub {
    /// Asks nothing yet.
    #[must_use]
    pub(crate) const fn new(settings: HubSettings) -> Self {
        Self { settings, patience: Patience::DEFAULT }
    }

    /// The folder with the model's files, fetched first if need be. A pinned commit that is in the
    /// cache is used without a request; a branch or a tag is asked for, and what it was last is
    /// used if nobody answers. It can be dropped at any time: what has come is kept and gone on
    /// from. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// When there is no whole model to give.
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
        let (held, folder) = cache.held();
        if held == Held::Whole && model.is_pinned() {
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
        // A commit stays what it is, whatever the hub says now. A branch that the hub has an
        // answer to is not what it was.
        let may_use_held = model.is_pinned() || self.settings.is_offline || error.is_retryable();
        if held == Held::Parts || !may_use_held {
            return Err(error);
        }
        let missing = (held == Held::Enough).then_some("perhaps small files");
        tracing::warn!(
            model = name,
            revision,
            folder = %folder.display(),
            missing,
            error = %crate::ground::error_chain::chain(&error),
            "the model is used as the cache has it"
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
        // Whoever waited here finds everything fetched below.
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
            // Two files may be the same.
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

/// Adds up the bytes of all files.
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
            let is_news = last.is_none_or(|last| done.abs_diff(last) >= REPORT_BYTES);
            if is_news || done == size {
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
