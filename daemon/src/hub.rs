//! Models by name: from the cache that Python's `huggingface_hub` shares, or from the hub.
//!
//! ```text
//! name, revision → checked → in the cache, pinned? ─────────────────────────────▶ folder
//!                              └▶ list → choose → what each file is → download → link ─▶ folder
//!                                  └▶ offline or not reachable: what the cache has ─▶ folder
//! ```
//!
//! # Invariants
//! - Nothing that a hub says becomes part of a path unchecked.
//! - A blob gets its name when it is whole, and a snapshot its files when all blobs are: a
//!   download that was cut is never taken for a model.
//! - This module reads no environment; the HTTP client below it looks for the system's proxies
//!   (`HTTPS_PROXY`, `NO_PROXY`) and certificates itself.
//! - The token goes to the hub's own host only, and into no log and no message.

mod api;
mod cache;
mod choose;
mod download;
mod error;
mod explain;
mod holding;
mod names;
mod settings;
#[cfg(test)]
mod stand_in;
#[cfg(test)]
mod tests;
mod tries;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use api::{Api, Listing, Patience, Remote};
use cache::ModelCache;
use download::Download;
use holding::Holding;
use tries::Tries;

pub use error::HubError;
pub use settings::{HubSettings, Token};

/// Progress is told after so many bytes, or a five-hundredth of all where that is more: many may
/// listen.
const PROGRESS_STEP: u64 = 64 * 1024;

/// How far the download of a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubProgress {
    /// The file that is fetched.
    pub file: String,
    /// What is there of all files that the model needs.
    pub done_bytes: u64,
    /// What they take together.
    pub total_bytes: u64,
}

/// The hub and the cache before it.
#[derive(Debug)]
pub(crate) struct Hub {
    settings: HubSettings,
    patience: Patience,
}

impl Hub {
    /// Sends nothing yet.
    pub(crate) fn new(settings: HubSettings) -> Self {
        Self { settings, patience: Patience::default() }
    }

    /// The folder with all files of a model that a loader needs.
    ///
    /// A commit that the cache holds whole is used without a request. A branch or tag is asked for
    /// each time; where the hub cannot be reached, what it was the last time is used.
    ///
    /// May be dropped at any time: what has arrived is kept and gone on with.
    ///
    /// # Errors
    /// See [`HubError`].
    pub(crate) async fn folder(
        &self,
        name: &str,
        revision: &str,
        progress: &(dyn Fn(HubProgress) + Send + Sync),
    ) -> Result<PathBuf, HubError> {
        names::check_name(name)?;
        names::check_revision(revision)?;
        let cache = ModelCache::new(&self.settings.cache, name);
        let held = holding::look(&cache, revision);
        match held {
            Holding::Whole(folder) if names::is_commit(revision) => return Ok(folder),
            Holding::Whole(folder) if self.settings.is_offline => return Ok(folder),
            Holding::Doubtful(folder, file) if self.settings.is_offline => {
                tracing::warn!(
                    model = name, revision, file, folder = %folder.display(),
                    "offline: the cache has the model, but nobody ever asked whether it has this file"
                );
                return Ok(folder);
            }
            Holding::Lacks(missing) if self.settings.is_offline => {
                return Err(HubError::Offline {
                    name: name.to_owned(),
                    revision: revision.to_owned(),
                    cache: self.settings.cache.clone(),
                    missing: format!("it lacks {missing}"),
                });
            }
            _ => {}
        }
        let cached = match held {
            Holding::Whole(folder) | Holding::Doubtful(folder, _) => Some(folder),
            Holding::Lacks(_) => None,
        };
        // Who has something to fall back on is not kept waiting for a hub in trouble.
        let tries = if cached.is_some() { 1 } else { self.patience.tries };
        match (self.ask(&cache, name, revision, tries, progress).await, cached) {
            (Err(error), Some(folder)) if error.is_retryable() => {
                tracing::warn!(
                    model = name, revision, %error, folder = %folder.display(),
                    "using what the cache has of the model, which may be older than the hub's"
                );
                Ok(folder)
            }
            (result, _) => result,
        }
    }

    async fn ask(
        &self,
        cache: &ModelCache,
        name: &str,
        revision: &str,
        tries: u32,
        progress: &(dyn Fn(HubProgress) + Send + Sync),
    ) -> Result<PathBuf, HubError> {
        let api = Api::new(&self.settings, self.patience.clone())?;
        let mut tries = Tries::new(&self.patience, tries);
        let Listing { commit, files } = loop {
            match api.list(name, revision).await {
                Ok(listing) => break listing,
                Err(error) => tries.after(error).await?,
            }
        };
        if let Some(file) = files.iter().find(|file| !names::stays_inside(file)) {
            return Err(HubError::Escapes { name: name.to_owned(), file: file.clone() });
        }
        let chosen = choose_usable(name, &files)?;

        let folder = cache.snapshot(&commit);
        let (there, missing): (Vec<&str>, Vec<&str>) =
            chosen.iter().partition(|file| folder.join(file).exists());
        let mut remotes: Vec<Remote> = Vec::with_capacity(missing.len());
        for file in missing {
            tries.reset();
            remotes.push(loop {
                match api.stat(name, &commit, file).await {
                    Ok(remote) => break remote,
                    Err(error) => tries.after(error).await?,
                }
            });
        }

        let mut done_bytes: u64 = there.iter().map(|file| size_of(&folder.join(file))).sum();
        let total_bytes =
            remotes.iter().fold(done_bytes, |sum, remote| sum.saturating_add(remote.size));
        let step = PROGRESS_STEP.max(total_bytes / 500);
        let told_bytes = AtomicU64::new(0);
        for remote in &remotes {
            let before = done_bytes;
            let tell = |bytes: u64| {
                let done_bytes = before.saturating_add(bytes);
                let is_edge = bytes == 0 || bytes == remote.size;
                if is_edge || done_bytes.abs_diff(told_bytes.load(Ordering::Relaxed)) >= step {
                    told_bytes.store(done_bytes, Ordering::Relaxed);
                    progress(HubProgress { file: remote.file.clone(), done_bytes, total_bytes });
                }
            };
            let commit = &commit;
            Download { api: &api, cache, name, commit, remote, progress: &tell }.run().await?;
            tell(remote.size);
            done_bytes = done_bytes.saturating_add(remote.size);
        }
        for remote in &remotes {
            cache.link(&commit, &remote.file, &remote.etag)?;
        }
        for file in holding::optional_files(&folder) {
            if !files.contains(&file) {
                cache.mark_absent(&commit, &file);
            }
        }
        cache.set_commit_of(revision, &commit)?;
        Ok(folder)
    }
}

/// The files to fetch, where a loader could use them.
fn choose_usable<'a>(name: &str, files: &'a [String]) -> Result<Vec<&'a str>, HubError> {
    let lacks = |missing| Err(HubError::NoModel { name: name.to_owned(), missing });
    let chosen = choose::choose(files);
    if !chosen.contains(&"config.json") && !chosen.contains(&"modules.json") {
        return lacks("config.json or modules.json");
    }
    if !chosen.iter().any(|file| choose::is_weight(file.rsplit('/').next().unwrap_or(file))) {
        return lacks("model.safetensors");
    }
    Ok(chosen)
}

fn size_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |facts| facts.len())
}
