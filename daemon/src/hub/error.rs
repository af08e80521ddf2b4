//! Why a model could not be fetched, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What went wrong between a model's name and its folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The settings name a model that the hub cannot have. No request was made.
    #[error(
        "{name:?} is not a name of a model on the hub: write \"organisation/name\" or \"name\", of letters, digits, '.', '_' and '-'"
    )]
    BadName {
        /// The name in the settings.
        name: String,
    },
    /// The settings name a revision that the hub cannot have. No request was made.
    #[error(
        "{revision:?} is not a revision: write a commit (40 hexadecimal digits), a branch or a tag"
    )]
    BadRevision {
        /// The revision in the settings.
        revision: String,
    },
    /// No variable names the folder for models.
    #[error("there is no folder to keep models in: set HF_HOME or HOME")]
    NoCache,
    /// Requests are disabled, and the model is not in the cache.
    #[error(
        "model {name} (revision {revision}) is not in {}, and HF_HUB_OFFLINE forbids requests to the hub: unset it once, copy the model there, or set local_path",
        cache.display()
    )]
    Offline {
        /// Name of the model on the hub.
        name: String,
        /// The commit, branch or tag that was requested.
        revision: String,
        /// The cache that was searched.
        cache: PathBuf,
    },
    /// The hub lacks the repository, the revision or a file.
    #[error(
        "{endpoint} has no {what}{} for model {name}, revision {revision}: check both in the settings{}",
        file.as_ref().map(|file| format!(" {file}")).unwrap_or_default(),
        private_hint(what)
    )]
    NotFound {
        /// The repository, the revision, or a file.
        what: Missing,
        /// The file, if one is missing.
        file: Option<String>,
        /// Name of the model on the hub.
        name: String,
        /// The commit, branch or tag that was requested.
        revision: String,
        /// Address of the hub.
        endpoint: String,
    },
    /// The hub requires a token for this model.
    #[error(
        "{endpoint} denies access to model {name} ({status}): set HF_TOKEN to a token that may read it; accept the licence at {endpoint}/{name} if it has one; check the name"
    )]
    NeedsToken {
        /// Name of the model on the hub.
        name: String,
        /// Address of the hub.
        endpoint: String,
        /// The HTTP status, 401 or 403.
        status: u16,
    },
    /// The hub limits the rate of requests.
    #[error(
        "{endpoint} has received too many requests: try again after {} s, or set HF_TOKEN",
        after.as_secs()
    )]
    TooManyRequests {
        /// Address of the hub.
        endpoint: String,
        /// How long it will refuse requests.
        after: Duration,
    },
    /// The hub did not answer.
    #[error("cannot reach {endpoint}: check the network and HF_ENDPOINT, or set local_path")]
    Unreachable {
        /// Address of the hub.
        endpoint: String,
        /// The network's error.
        source: reqwest::Error,
    },
    /// The hub accepted a connection, and sends nothing.
    #[error(
        "{endpoint} has sent nothing for {} s: check the network, or try again later",
        after.as_secs()
    )]
    Silent {
        /// Address of the hub.
        endpoint: String,
        /// How long the daemon waited.
        after: Duration,
    },
    /// The hub reports an error of its own.
    #[error("{endpoint} answers {status}: try again later")]
    Server {
        /// Address of the hub.
        endpoint: String,
        /// The HTTP status.
        status: u16,
    },
    /// The answer is not that of a hub.
    #[error("{endpoint} does not answer like a hub ({what}): check HF_ENDPOINT")]
    Answer {
        /// Address of the hub.
        endpoint: String,
        /// What makes the answer unusable.
        what: &'static str,
    },
    /// The connection ended too early. The bytes that arrived are kept for the next try.
    #[error("{file} was cut off at {done} of {size} bytes: try again, it continues from there")]
    CutShort {
        /// The file, within the repository.
        file: String,
        /// Bytes that have arrived.
        done: u64,
        /// Bytes of the file.
        size: u64,
    },
    /// The file differs from the hub's description. It was removed.
    #[error(
        "{file} came with {what} {found} instead of {expected} and was removed: try again; if it happens again, something between this machine and the hub is changing files"
    )]
    Mismatch {
        /// The file, within the repository.
        file: String,
        /// Whether the size or the hash differs.
        what: &'static str,
        /// The size or hash of what arrived.
        found: String,
        /// The size or hash that the hub announced.
        expected: String,
    },
    /// The disk is full, or the folder is not writable.
    #[error("cannot write {}: make room or set HF_HOME to a writable folder", path.display())]
    Cache {
        /// What could not be written.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A path in the listing leaves the model's folder. Nothing was fetched.
    #[error(
        "model {name} lists a file outside of its folder ({file:?}): do not use this model or this hub"
    )]
    Escapes {
        /// Name of the model on the hub.
        name: String,
        /// The path in the listing.
        file: String,
    },
    /// The repository holds something else, such as a dataset.
    #[error("{name} has no {missing}: choose a model with safetensors weights and a config.json")]
    NotAModel {
        /// Name of the model on the hub.
        name: String,
        /// The file that the repository lacks.
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
    /// The hub did not say which of the two.
    Either,
}

impl HubError {
    /// Whether the same request may succeed later without any change.
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

    /// Adds the name of the requested file, if a file is missing.
    #[must_use]
    pub(super) fn of_file(mut self, asked: &str) -> Self {
        if let Self::NotFound { what: Missing::File, file, .. } = &mut self {
            *file = Some(asked.to_owned());
        }
        self
    }

    /// For use with `map_err`: a path of the cache could not be written.
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

/// The hub does not distinguish a private repository from a missing one.
const fn private_hint(what: &Missing) -> &'static str {
    match what {
        Missing::Repository | Missing::Either => "; a private model needs HF_TOKEN",
        Missing::Revision | Missing::File => "",
    }
}
