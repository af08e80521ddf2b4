//! What the hub's refusals and failures mean.

use std::error::Error as _;
use std::time::Duration;

use hf_hub::HFError;
use reqwest::header::RETRY_AFTER;
use reqwest::{StatusCode, Url};

use super::HubError;
use super::api::Api;

impl Api {
    /// What an answer about a file means, unless it is a good one.
    pub(super) fn check(
        &self,
        name: &str,
        commit: &str,
        file: &str,
        response: &reqwest::Response,
    ) -> Result<(), HubError> {
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let text =
            |header: &str| response.headers().get(header).and_then(|value| value.to_str().ok());
        let is_hub = Url::parse(&self.settings.endpoint)
            .is_ok_and(|endpoint| endpoint.origin() == response.url().origin());
        if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS && !is_hub {
            // Addresses of storage are good for a while only: the hub gives another one.
            let host = response.url().host_str().unwrap_or_default();
            return Err(self.trouble(format!("its storage at {host} answers {status}")));
        }
        Err(match status {
            StatusCode::UNAUTHORIZED if is_no_model(text("x-error-code")) => self.no_model(name),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.needs_token(name),
            StatusCode::NOT_FOUND => match text("x-error-code") {
                Some("RepoNotFound") => self.no_model(name),
                Some("RevisionNotFound") => no_revision(name, commit),
                _ => self.answer(&format!("it lists {file} and does not have it")),
            },
            StatusCode::TOO_MANY_REQUESTS => {
                let seconds = text(RETRY_AFTER.as_str()).and_then(|text| text.trim().parse().ok());
                self.too_many(seconds.map(Duration::from_secs))
            }
            _ => self.other(status),
        })
    }

    /// What hf-hub says, in our words.
    pub(super) fn explain(&self, name: &str, revision: &str, error: HFError) -> HubError {
        match error {
            HFError::AuthRequired { context } if is_no_model(context.error_code.as_deref()) => {
                self.no_model(name)
            }
            HFError::AuthRequired { .. } | HFError::Forbidden { .. } => self.needs_token(name),
            HFError::RepoNotFound { .. } => self.no_model(name),
            HFError::RevisionNotFound { context, .. } => {
                // A missing repository is reported as a missing revision: the hub's own code tells.
                let code = context.as_ref().and_then(|context| context.error_code.as_deref());
                if code == Some("RevisionNotFound") {
                    no_revision(name, revision)
                } else {
                    self.no_model(name)
                }
            }
            HFError::RateLimited { retry_after, .. } => self.too_many(retry_after),
            HFError::Http { context } => self.other(context.status),
            HFError::Request { source, .. } if source.is_decode() && !source.is_timeout() => {
                self.answer(&chain(&source.without_url()))
            }
            HFError::Request { source, .. } => self.unreachable(&source),
            other => self.answer(&other.to_string()),
        }
    }

    fn other(&self, status: StatusCode) -> HubError {
        if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
            self.trouble(format!("it answers {status}"))
        } else {
            self.answer(&format!("it answers {status}"))
        }
    }

    fn needs_token(&self, name: &str) -> HubError {
        let had_token = self.settings.token.is_some();
        HubError::NeedsToken {
            name: name.into(),
            endpoint: self.settings.endpoint.clone(),
            had_token,
        }
    }

    fn no_model(&self, name: &str) -> HubError {
        HubError::NoSuchModel { name: name.into(), endpoint: self.settings.endpoint.clone() }
    }

    fn too_many(&self, retry_after: Option<Duration>) -> HubError {
        HubError::TooManyRequests { endpoint: self.settings.endpoint.clone(), retry_after }
    }

    /// No answer came.
    pub(super) fn unreachable(&self, error: &reqwest::Error) -> HubError {
        self.trouble(chain(error))
    }

    fn trouble(&self, why: String) -> HubError {
        HubError::Unreachable { endpoint: self.settings.endpoint.clone(), why }
    }

    /// An answer came that no hub gives.
    pub(super) fn answer(&self, what: &str) -> HubError {
        HubError::Answer { endpoint: self.settings.endpoint.clone(), what: what.to_owned() }
    }
}

/// To one whom it does not know, the hub says 401 for what does not exist too.
fn is_no_model(code: Option<&str>) -> bool {
    code == Some("RepoNotFound")
}

fn no_revision(name: &str, revision: &str) -> HubError {
    HubError::NoSuchRevision { name: name.to_owned(), revision: revision.to_owned() }
}

/// What went wrong below, without the address: one of storage is a secret for a while.
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "timed out".to_owned() } else { String::new() };
    let mut source = error.source();
    while let Some(error) = source {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        source = error.source();
    }
    if text.is_empty() { "the request failed".to_owned() } else { text }
}
