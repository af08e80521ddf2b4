//! Requests to the hub, and the meaning of its answers.

use crate::hub::error::{HubError, Missing};
use crate::hub::listing::{BlobId, Content, Listing};
use crate::hub::name::HubModel;
use crate::hub::patience::{Patience, wanted_pause};
use crate::hub::settings::{HubSettings, Token};
use hf_hub::Cache;
use hf_hub::api::tokio::{Api, ApiBuilder, ApiError};
use reqwest::{Client, RequestBuilder, Response, StatusCode, redirect::Policy};
use std::time::SystemTime;
use tokio::time::{sleep, timeout};

/// Larger than the listing of any known repository.
const MAX_LISTING_BYTES: usize = 32 << 20;

/// The connection of one fetch to a hub.
#[derive(Debug)]
pub(super) struct Endpoint {
    url: String,
    token: Option<Token>,
    api: Api,
    /// Does not follow redirects to other hosts: the headers of the redirect describe the file.
    /// hf-hub has such a client too, but does not expose it.
    head_client: Client,
    patience: Patience,
}

impl Endpoint {
    /// Makes no request yet. Reads the system's certificates.
    pub(super) fn new(settings: &HubSettings, patience: Patience) -> Result<Self, HubError> {
        let url = settings.endpoint.clone();
        let unusable = |what| HubError::Answer { endpoint: url.clone(), what };
        // hf-hub does not get the token: it would send it to the host that stores the files too. A
        // token that is set on a single request is not sent to another host.
        let api = ApiBuilder::from_cache(Cache::new(settings.cache.clone()))
            .with_token(None)
            .with_endpoint(url.clone())
            .with_progress(false)
            .with_user_agent("emberd", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|error| match error {
                ApiError::RequestError(source) => {
                    HubError::Unreachable { endpoint: url.clone(), source }
                }
                _ => unusable("no client can be created for it"),
            })?;
        let head_client = Client::builder()
            .redirect(Policy::custom(|attempt| {
                let hub = attempt.previous().first().map(reqwest::Url::origin);
                match hub {
                    _ if attempt.previous().len() > 10 => attempt.error("too many redirects"),
                    Some(hub) if hub == attempt.url().origin() => attempt.follow(),
                    _ => attempt.stop(),
                }
            }))
            .build()
            .map_err(|source| HubError::Unreachable { endpoint: url.clone(), source })?;
        Ok(Self { token: settings.token.clone(), url, api, head_client, patience })
    }

    /// How often and how long requests are repeated.
    pub(super) const fn patience(&self) -> &Patience {
        &self.patience
    }

    /// Its URL, for errors.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// What the model's revision is and what is in it.
    pub(super) async fn listing(&self, model: &HubModel) -> Result<Listing, HubError> {
        // With sizes and hashes, which hf-hub's own `info` does not ask for: so one request tells
        // of all files what would take one for each.
        let info = self.api.repo(model.at(&model.revision)).info_request();
        let request = info.query(&[("blobs", "true")]);
        let mut response = self.ask(request, model, Missing::Either).await?;
        let mut json = Vec::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            json.extend_from_slice(&chunk);
            if json.len() > MAX_LISTING_BYTES {
                return Err(self.odd("the listing is too long"));
            }
        }
        Listing::read(&json, model, &self.url)
    }

    /// The size and hash of a file that the listing does not describe. The hub sends them in the
    /// headers of the redirect to the store.
    pub(super) async fn content(
        &self,
        model: &HubModel,
        commit: &str,
        file: &str,
    ) -> Result<Content, HubError> {
        let request = self.head_client.head(self.address(model, commit, file));
        let response = self.ask(request, model, Missing::File).await;
        let response = response.map_err(|error| error.of_file(file))?;
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        if header("x-repo-commit").is_some_and(|other| other != commit) {
            return Err(self.odd("a file is of another commit"));
        }
        let etag = header("x-linked-etag").or_else(|| header("etag"));
        // The content length of a redirect is its own.
        let own_length =
            || header("content-length").filter(|_| !response.status().is_redirection());
        let size = header("x-linked-size").or_else(own_length);
        Ok(Content {
            id: etag.and_then(BlobId::new).ok_or_else(|| self.odd("a file has no usable etag"))?,
            size: size
                .and_then(|size| size.parse().ok())
                .ok_or_else(|| self.odd("a file has no size"))?,
        })
    }

    /// Requests a file from a byte on. The answer may still be the whole file (200) or nothing (416).
    pub(super) async fn bytes(
        &self,
        model: &HubModel,
        commit: &str,
        file: &str,
        from: u64,
    ) -> Result<Response, HubError> {
        let mut request = self.api.client().get(self.address(model, commit, file));
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        self.ask(request, model, Missing::File).await.map_err(|error| error.of_file(file))
    }

    /// The next chunk of an answer; `None` at its end.
    pub(super) async fn chunk(
        &self,
        response: &mut Response,
    ) -> Result<Option<impl AsRef<[u8]> + Send + std::ops::Deref<Target = [u8]>>, HubError> {
        match timeout(self.patience.silence, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(self.unreachable(error)),
            Err(_) => Err(self.silent()),
        }
    }

    fn address(&self, model: &HubModel, commit: &str, file: &str) -> String {
        self.api.repo(model.at(commit)).url(file)
    }

    /// Repeats a request until there is an answer or patience ends. hf-hub would fail at the first 429
    /// and discard its `Retry-After`.
    async fn ask(
        &self,
        request: RequestBuilder,
        model: &HubModel,
        missing: Missing,
    ) -> Result<Response, HubError> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token.secret()),
            None => request,
        };
        let mut failures = 0;
        loop {
            let again = request.try_clone().ok_or_else(|| self.odd("a request has a body"))?;
            let error = match timeout(self.patience.silence, again.send()).await {
                Ok(Ok(response)) => match self.verdict(&response, model, missing, failures + 1) {
                    None => return Ok(response),
                    Some(error) => error,
                },
                Ok(Err(error)) => self.unreachable(error),
                Err(_) => self.silent(),
            };
            failures += 1;
            let pause = match &error {
                HubError::TooManyRequests { after, .. } => *after,
                HubError::Server { .. } => self.patience.after(failures),
                // The hub may have closed a kept-alive connection, so a new one is tried. If it
                // cannot be reached at all, the copy in the cache is used without delay.
                HubError::Unreachable { source, .. } if !source.is_connect() => {
                    self.patience.after(failures)
                }
                _ => return Err(error),
            };
            if failures >= self.patience.tries || pause > self.patience.longest_pause {
                return Err(error);
            }
            tracing::warn!(model = model.name, %error, ms = pause.as_millis(), "repeating a request to the hub");
            sleep(pause).await;
        }
    }

    fn verdict(
        &self,
        response: &Response,
        model: &HubModel,
        missing: Missing,
        failures: u32,
    ) -> Option<HubError> {
        let endpoint = self.url.clone();
        let status = response.status();
        match status {
            // A redirect is the answer to a request for headers.
            StatusCode::RANGE_NOT_SATISFIABLE => None,
            _ if status.is_success() || status.is_redirection() => None,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Some(HubError::NeedsToken {
                name: model.name.clone(),
                endpoint,
                status: status.as_u16(),
            }),
            StatusCode::NOT_FOUND => {
                let code = response.headers().get("x-error-code");
                let what = match code.and_then(|code| code.to_str().ok()) {
                    Some("RepoNotFound") => Missing::Repository,
                    Some("RevisionNotFound") => Missing::Revision,
                    Some("EntryNotFound") => Missing::File,
                    _ => missing,
                };
                let (name, revision) = (model.name.clone(), model.revision.clone());
                Some(HubError::NotFound { what, file: None, name, revision, endpoint })
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let after = wanted_pause(response.headers(), SystemTime::now());
                let after = after.unwrap_or_else(|| self.patience.after(failures));
                Some(HubError::TooManyRequests { endpoint, after })
            }
            _ if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                Some(HubError::Server { endpoint, status: status.as_u16() })
            }
            _ => Some(self.odd("an unexpected status")),
        }
    }

    /// Without the URL, which may hold a signature that lets anybody fetch the file.
    fn unreachable(&self, error: reqwest::Error) -> HubError {
        HubError::Unreachable { endpoint: self.url.clone(), source: error.without_url() }
    }

    fn silent(&self) -> HubError {
        HubError::Silent { endpoint: self.url.clone(), after: self.patience.silence }
    }

    fn odd(&self, what: &'static str) -> HubError {
        HubError::Answer { endpoint: self.url.clone(), what }
    }
}
