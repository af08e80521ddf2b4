//! What the hub is asked: what a revision is, what it holds, and what a file of it is.

use std::time::Duration;

use hf_hub::{HFClient, split_id};
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, HeaderValue,
};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};

use super::explain::chain;
use super::names::{is_blob_name, is_commit};
use super::{HubError, HubSettings};

const USER_AGENT: &str = concat!("emberd/", env!("CARGO_PKG_VERSION"));

/// How long the hub is waited for, and how often it is asked again.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    /// For a connection.
    pub(super) connect: Duration,
    /// For the next byte.
    pub(super) stall: Duration,
    /// Before the second try; doubled for each later one.
    pub(super) pause: Duration,
    /// For what a hub may ask for with `Retry-After`.
    pub(super) longest_pause: Duration,
    /// Tries in a row that bring nothing new.
    pub(super) tries: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(60),
            pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(60),
            tries: 5,
        }
    }
}

/// A commit and the files it has.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

/// What the hub says of a file.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    pub(super) file: String,
    /// The name of its content. The content's SHA-256, where it is 64 hexadecimal digits.
    pub(super) etag: String,
    pub(super) size: u64,
}

/// The hub as one who asks it about one model sees it.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) settings: HubSettings,
    /// hf-hub, for the hub's own interface.
    ///
    /// Version 1.0.0 is not used for files: it does not go on with a download that was cut, does
    /// not look at the status of the answer that it writes down, checks neither size nor hash, and
    /// ignores `Retry-After`. Its file metadata come from behind redirects, where the hub's
    /// headers are gone. So files are asked for with the HTTP client below it.
    hub: HFClient,
    /// Stays with the hub: a redirect to another host is an answer, with the headers we want.
    asking: Client,
    /// Follows redirects. The token goes to the hub's own host only.
    pub(super) fetching: Client,
    pub(super) patience: Patience,
}

impl Api {
    pub(super) fn new(settings: &HubSettings, patience: Patience) -> Result<Self, HubError> {
        let bad = |what: String| HubError::Answer { endpoint: settings.endpoint.clone(), what };
        let endpoint = Url::parse(&settings.endpoint).map_err(|error| bad(error.to_string()))?;
        if !matches!(endpoint.scheme(), "http" | "https") {
            return Err(bad("its address is neither http nor https".into()));
        }
        let mut headers = HeaderMap::new();
        // Ranges and sizes are those of the file itself.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(token) = &settings.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
                .map_err(|_| bad("HF_TOKEN has characters that no token has".into()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let builder = || {
            Client::builder()
                .user_agent(USER_AGENT)
                .default_headers(headers.clone())
                .connect_timeout(patience.connect)
                .read_timeout(patience.stall)
                .https_only(endpoint.scheme() == "https")
        };
        let stay = Policy::custom(|attempt| {
            let is_same = attempt
                .previous()
                .last()
                .is_some_and(|last| last.origin() == attempt.url().origin());
            if !is_same {
                attempt.stop()
            } else if attempt.previous().len() > 10 {
                attempt.error("too many redirects")
            } else {
                attempt.follow()
            }
        });
        let text = |error: reqwest::Error| bad(chain(&error));
        let asking = builder().redirect(stay).build().map_err(text)?;
        let fetching = builder().build().map_err(text)?;
        let hub = HFClient::builder()
            .endpoint(&settings.endpoint)
            .client(asking.clone())
            // Given no token, hf-hub looks for one in the environment, which a library must not.
            // One that fits into no header is not sent; ours is among the client's own headers.
            .token("\n")
            .user_agent(USER_AGENT)
            .cache_dir(&settings.cache)
            .cache_enabled(false)
            // We try again ourselves, when the hub wants it.
            .retry_max_attempts(0)
            .build()
            .map_err(|error| bad(error.to_string()))?;
        Ok(Self { settings: settings.clone(), hub, asking, fetching, patience })
    }

    /// What a revision is and holds.
    pub(super) async fn list(&self, name: &str, revision: &str) -> Result<Listing, HubError> {
        let (owner, short) = split_id(name);
        let model = self.hub.model(owner, short);
        let info = model.info().revision(revision).send().await;
        let info = info.map_err(|error| self.explain(name, revision, error))?;
        let commit = info.sha.filter(|sha| is_commit(sha));
        let commit = commit.ok_or_else(|| self.answer("it names no commit"))?;
        if is_commit(revision) && !commit.eq_ignore_ascii_case(revision) {
            return Err(self.answer("it names another commit than it was asked for"));
        }
        let files = info.siblings.unwrap_or_default();
        Ok(Listing { commit, files: files.into_iter().map(|file| file.rfilename).collect() })
    }

    /// What a file of a commit is.
    pub(super) async fn stat(
        &self,
        name: &str,
        commit: &str,
        file: &str,
    ) -> Result<Remote, HubError> {
        let url = self.url(name, commit, file)?;
        let response =
            self.asking.head(url).send().await.map_err(|error| self.unreachable(&error))?;
        if !response.status().is_redirection() {
            self.check(name, commit, file, &response)?;
        }
        let text =
            |header: &str| response.headers().get(header).and_then(|value| value.to_str().ok());
        if text("x-repo-commit").is_some_and(|other| !other.eq_ignore_ascii_case(commit)) {
            return Err(self.answer(&format!("its {file} is of another commit")));
        }
        let etag = text("x-linked-etag").or_else(|| text(ETAG.as_str())).unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
        if !is_blob_name(&etag) {
            return Err(self.answer(&format!("its {file} has no usable etag")));
        }
        // The length of a redirect is not the file's.
        let length = text(CONTENT_LENGTH.as_str()).filter(|_| response.status().is_success());
        let size = text("x-linked-size").or(length).and_then(|size| size.parse().ok());
        let size = size.ok_or_else(|| self.answer(&format!("its {file} has no size")))?;
        Ok(Remote { file: file.to_owned(), etag, size })
    }

    /// Where a file of a commit is had.
    pub(super) fn url(&self, name: &str, commit: &str, file: &str) -> Result<Url, HubError> {
        let base = format!("{}/{name}/resolve/{commit}", self.settings.endpoint);
        let mut url = Url::parse(&base).map_err(|error| self.answer(&error.to_string()))?;
        url.path_segments_mut()
            .map_err(|()| self.answer("its address can have no path"))?
            .extend(file.split('/'));
        Ok(url)
    }
}
