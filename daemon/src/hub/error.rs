//! Why a model could not be had by its name, and what to do about it.

use std::path::PathBuf;
use std::time::Duration;

/// Why a model could not be had by its name. Each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// No request may be sent, and the cache does not hold the model.
    #[error(
        "offline, and {} does not hold all of {name} at revision {revision} ({missing}): \
         switch HF_HUB_OFFLINE off, or carry the model there, or set local_path", cache.display()
    )]
    Offline {
        /// The model.
        name: String,
        /// Its revision.
        revision: String,
        /// The cache folder.
        cache: PathBuf,
        /// What is not there.
        missing: String,
    },
    /// The hub has no such model.
    #[error("{endpoint} has no model {name}: check its name; a private one needs HF_TOKEN")]
    NoSuchModel {
        /// The model.
        name: String,
        /// The hub.
        endpoint: String,
    },
    /// The model has no such revision.
    #[error("{name} has no revision {revision}: name a branch, a tag or a full commit hash of it")]
    NoSuchRevision {
        /// The model.
        name: String,
        /// The revision.
        revision: String,
    },
    /// The repository holds nothing that a loader could use.
    #[error(
        "{name} holds no {missing} that can be used: name a SentenceTransformers or transformers model"
    )]
    NoModel {
        /// The model.
        name: String,
        /// What it lacks.
        missing: &'static str,
    },
    /// The model is private or gated.
    #[error(
        "{endpoint} refuses {name} ({}): check its name; if it is right, set HF_TOKEN to a token \
         that may read it, and accept the licence at {endpoint}/{name}",
        if *had_token { "with the token that is set" } else { "no token is set" }
    )]
    NeedsToken {
        /// The model.
        name: String,
        /// The hub.
        endpoint: String,
        /// Whether a token was sent.
        had_token: bool,
    },
    /// The hub wants to be asked less often.
    #[error("{endpoint} was asked too often{}: wait, or set HF_TOKEN, which is allowed more", after(*retry_after))]
    TooManyRequests {
        /// The hub.
        endpoint: String,
        /// How long the hub wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// There was no answer, or only that the hub is in trouble itself.
    #[error(
        "cannot reach the model hub at {endpoint} ({why}): check the network, HTTPS_PROXY and \
         HF_ENDPOINT, or set local_path"
    )]
    Unreachable {
        /// The hub.
        endpoint: String,
        /// What happened.
        why: String,
    },
    /// A download broke off again and again. What has arrived is kept and gone on with.
    #[error(
        "the download of {file} broke off at {done_bytes} of {total_bytes} bytes ({why}): try again, \
         it goes on from there"
    )]
    CutShort {
        /// The file.
        file: String,
        /// What has arrived.
        done_bytes: u64,
        /// Its size.
        total_bytes: u64,
        /// What happened.
        why: String,
    },
    /// What arrived is not what was announced. It was thrown away.
    #[error(
        "{file} is not what the hub announced ({what}) and was thrown away: try again, or mistrust the hub or proxy"
    )]
    Mismatch {
        /// The file.
        file: String,
        /// What differs.
        what: String,
    },
    /// The cache cannot be written, or the disk is full.
    #[error("cannot write {}: make room or give it rights, or set HF_HUB_CACHE to another folder", path.display())]
    CannotWrite {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No model can have this name.
    #[error(
        "\"{name}\" is no model name: write org/name, of letters, digits, \".\", \"_\" and \"-\", without \"..\" or \"--\""
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// No revision can be called so.
    #[error(
        "\"{revision}\" is no revision: write a branch, a tag or a commit hash, of letters, digits, \".\", \"_\", \"-\" and \"/\""
    )]
    BadRevision {
        /// The revision.
        revision: String,
    },
    /// The hub lists a file outside the model's folder.
    #[error(
        "the hub lists a file outside the folder of {name} ({file:?}): nothing was loaded; mistrust this hub"
    )]
    Escapes {
        /// The model.
        name: String,
        /// The file.
        file: String,
    },
    /// The hub's answer makes no sense.
    #[error("{endpoint} does not answer as a model hub does ({what}): check HF_ENDPOINT")]
    Answer {
        /// The hub.
        endpoint: String,
        /// What is wrong with it.
        what: String,
    },
}

impl HubError {
    /// Whether the same request may succeed later without anybody doing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::TooManyRequests { .. }
                | Self::Unreachable { .. }
                | Self::CutShort { .. }
                | Self::Mismatch { .. }
        )
    }
}

fn after(delay: Option<Duration>) -> String {
    delay.map_or_else(String::new, |delay| format!(" and wants {} s of rest", delay.as_secs()))
}
