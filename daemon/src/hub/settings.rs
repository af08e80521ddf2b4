//! The hub's environment variables, with the meaning that Python's `huggingface_hub` gives them.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// The hub that models are fetched from, and the folder that they are kept in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// The folder with a folder for each model (`models--org--name`). Empty if no variable names it,
    /// not even `HOME`; then no model can be fetched.
    pub cache: PathBuf,
    /// The URL of the hub, without a slash at the end.
    pub endpoint: String,
    /// Sent to the hub, and to no host that it redirects to.
    pub token: Option<Token>,
    /// No request is made; only models in the cache are used.
    pub is_offline: bool,
}

/// A secret that authenticates requests to the hub. It is never shown, not even in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl HubSettings {
    /// Takes the settings from variables: `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HOME`,
    /// `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH` and `HF_HUB_OFFLINE`. An empty one counts as
    /// not set. Where no variable holds a token, its file is read.
    pub fn from_variables(variables: impl Fn(&str) -> Option<OsString>) -> Self {
        let variable = |name: &str| variables(name).filter(|value| !value.is_empty());
        let text = |name: &str| Some(variable(name)?.to_string_lossy().trim().to_owned());
        let user = variable("HOME").map(PathBuf::from);
        let path = |name: &str| Some(expanded(&PathBuf::from(variable(name)?), user.as_deref()));

        let home = path("HF_HOME")
            .or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| Some(user.as_ref()?.join(".cache/huggingface")));
        let cache = path("HF_HUB_CACHE").or_else(|| Some(home.as_ref()?.join("hub")));
        let token_file = path("HF_TOKEN_PATH").or_else(|| Some(home.as_ref()?.join("token")));
        let endpoint = text("HF_ENDPOINT").filter(|endpoint| !endpoint.is_empty());
        let token = text("HF_TOKEN").or_else(|| std::fs::read_to_string(token_file?).ok());
        let is_yes =
            |value: String| ["1", "true", "yes", "on"].contains(&&*value.to_ascii_lowercase());
        Self {
            cache: cache.unwrap_or_default(),
            endpoint: endpoint
                .map_or_else(|| DEFAULT_ENDPOINT.into(), |url| url.trim_end_matches('/').into()),
            token: token.and_then(|token| Token::new(&token)),
            is_offline: text("HF_HUB_OFFLINE").is_some_and(is_yes),
        }
    }

    /// What is wrong with the URL of the hub, if no request could be made to it.
    #[must_use]
    pub fn endpoint_fault(&self) -> Option<String> {
        let is_address = reqwest::Url::parse(&self.endpoint)
            .is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
        (!is_address).then(|| {
            format!(
                "HF_ENDPOINT is \"{}\": give the address of a hub, such as {DEFAULT_ENDPOINT}",
                self.endpoint
            )
        })
    }
}

impl Token {
    /// A token without the blanks around it. `None` if nothing is left, or if it has characters that
    /// cannot be sent in a header.
    #[must_use]
    pub fn new(token: &str) -> Option<Self> {
        let token = token.trim();
        let can_be_sent = token.bytes().all(|byte| byte.is_ascii_graphic());
        if !can_be_sent {
            tracing::warn!(
                "the hub's token has blanks or other invalid characters and is not used"
            );
        }
        (can_be_sent && !token.is_empty()).then(|| Self(token.to_owned()))
    }

    /// The secret, to be sent.
    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Expands `~/x`, which people also write where no shell does it.
fn expanded(path: &Path, user: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), user) {
        (Ok(rest), Some(user)) => user.join(rest),
        _ => path.to_owned(),
    }
}
