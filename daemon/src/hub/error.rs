//! Why a model could not be had by name, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What went wrong between a model's name and its folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// No request was made with it.
    #[error(
        "{name:?} is no name of a model on the hub: write \"organisation/name\" or \"name\", of letters, digits, '.', '_' and '-'"
    )]
    BadName {
        /// As given.
        name: String,
    },
    /// No request was made with it.
    #[error(
        "{revision:?} is no revision: write a commit (40 hexadecimal digits), a branch or a tag"
    )]
    BadRevision {
        /// As given.
        revision: String,
    },
    /// No variable tells where models are kept.
    #[error("there is no folder to keep models in: set HF_HOME or HOME")]
    NoCache,
    /// Requests are forbidden and the cache lacks the model.
    #[error(
        "model {name} (revision {revision}) is not in {}, and the hub may not be asked: unset HF_HUB_OFFLINE once, copy the model there, or set local_path",
        cache.display()
    )]
    Offline {
        /// Of the model.
        name: String,
        /// Of the model.
        revision: String,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// The hub does not know it.
    #[error(
        "{endpoint} has no {what}{} for model {name}, revision {revision}: check both in the settings{}",
        file.as_ref().map(|file| format!(" {file}")).unwrap_or_default(),
        private_hint(what)
    )]
    NotFound {
        /// The repository, the revision, or a file.
        what: Missing,
        /// Which file, where it is one.
        file: Option<String>,
        /// Of the model.
        name: String,
        /// Of the model.
        revision: String,
        /// The hub.
        endpoint: String,
    },
    /// The hub does not show it to whoever asks.
    #[error(
        "{endpoint} does not give out model {name} ({status}): set HF_TOKEN to a token that may read it; accept the licence at {endpoint}/{name} if it has one; check the name"
    )]
    NeedsToken {
        /// Of the model.
        name: String,
        /// The hub.
        endpoint: String,
        /// 401 or 403.
        status: u16,
    },
    /// The hub wants fewer requests.
    #[error(
        "{endpoint} has had too many requests: try again after {} s, or set HF_TOKEN",
        after.as_secs()
    )]
    TooManyRequests {
        /// The hub.
        endpoint: String,
        /// When it will answer again.
        after: Duration,
    },
    /// No answer came.
    #[error("cannot reach {endpoint}: check the network and HF_ENDPOINT, or set local_path")]
    Unreachable {
        /// The hub.
        endpoint: String,
        /// Why.
        source: reqwest::Error,
    },
    /// A connection stands, and nothing comes.
    #[error(
        "{endpoint} has said nothing for {} s: check the network, or try again later",
        after.as_secs()
    )]
    Silent {
        /// The hub.
        endpoint: String,
        /// How long was waited.
        after: Duration,
    },
    /// The hub is in trouble.
    #[error("{endpoint} answers {status}: try again later")]
    Server {
        /// The hub.
        endpoint: String,
        /// The status.
        status: u16,
    },
    /// What came makes no sense.
    #[error("{endpoint} does not answer as a hub does ({what}): check HF_ENDPOINT")]
    Answer {
        /// The hub.
        endpoint: String,
        /// What is wrong.
        what: &'static str,
    },
    /// The connection ended before the file did. What came is kept for the next try.
    #[error("{file} was cut off at {done} of {size} bytes: try again, it goes on from there")]
    CutShort {
        /// In the repository.
        file: String,
        /// How much there is.
        done: u64,
        /// How much there should be.
        size: u64,
    },
    /// The file is not what the hub said it would be. What came was removed.
    #[error(
        "{file} came with {what} {found} instead of {expected} and was removed: try again; if it stays, something on the way changes files"
    )]
    Mismatch {
        /// In the repository.
        file: String,
        /// The size or the hash.
        what: &'static str,
        /// What came.
        found: String,
        /// What was announced.
        expected: String,
    },
    /// The disk is full, or the folder cannot be written.
    #[error("cannot write {}: make room or set HF_HOME to a folder that can be written", path.display())]
    Cache {
        /// What could not be written.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing was fetched.
    #[error(
        "model {name} lists a file outside of its folder ({file:?}): do not use this model or this hub"
    )]
    Escapes {
        /// Of the model.
        name: String,
        /// As listed.
        file: String,
    },
    /// It may be something else, such as a dataset.
    #[error("{name} has no {missing}: choose a model with safetensors weights and a config.json")]
    NotAModel {
        /// Of the model.
        name: String,
        /// What every model has.
        missing: &'static str,
    },
}

/// What a hub does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// There is no model of this name.
    Repository,
    /// The model has no such commit, branch or tag.
    Revision,
    /// The hub lists a file that it does not have.
    File,
    /// It did not say which.
    Either,
}

impl HubError {
    /// Whether the same request may succeed later without anybody doing anything.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::TooManyRequests { .. }
            | Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::Server { .. }
            | Self::CutShort { .. } => true,
            Self::BadName { .. }
            | Self::BadRevision { .. }
            | Self::NoCache
            | Self::Offline { .. }
            | Self::NotFound { .. }
            | Self::NeedsToken { .. }
            | Self::Answer { .. }
            | Self::Mismatch { .. }
            | Self::Cache { .. }
            | Self::Escapes { .. }
            | Self::NotAModel { .. } => false,
        }
    }

    /// Names the file that was asked for, where it is the one that is missing.
    #[must_use]
    pub(super) fn of_file(mut self, asked: &str) -> Self {
        if let Self::NotFound { what: Missing::File, file, .. } = &mut self {
            *file = Some(asked.to_owned());
        }
        self
    }

    /// The way to say that the cache could not be written.
    pub(super) fn cache(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Cache { path, source }
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Repository => "repository",
            Self::Revision => "such revision",
            Self::File => "such file",
            Self::Either => "repository or no such revision",
        })
    }
}

/// The hub hides what may not be seen.
const fn private_hint(what: &Missing) -> &'static str {
    match what {
        Missing::Repository | Missing::Either => "; a private model needs HF_TOKEN",
        Missing::Revision | Missing::File => "",
    }
}
