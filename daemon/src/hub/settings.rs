//! What the environment says about the hub, as Python's `huggingface_hub` understands it.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Where models by name come from and where they are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// The folder with a folder for each model (`models--org--name`). Empty where no variable
    /// tells it, not even `HOME`; then no model can be had by name.
    pub cache: PathBuf,
    /// The hub, without a slash at the end.
    pub endpoint: String,
    /// Shown to the hub, and to nobody that it redirects to.
    pub token: Option<Token>,
    /// No request is made; only what is in the cache is used.
    pub is_offline: bool,
}

/// A secret that says to the hub who asks. It is never shown, not even in debug output.
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
}

impl HubSettings {
    /// What is wrong with the address of the hub, if no request could be made to it.
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
    /// A token without the blanks around it; none if nothing is left, or if it has characters that
    /// no token has, which could not be sent.
    #[must_use]
    pub fn new(token: &str) -> Option<Self> {
        let token = token.trim();
        let can_be_sent = token.bytes().all(|byte| byte.is_ascii_graphic());
        if !can_be_sent {
            tracing::warn!("the hub's token has blanks or other odd characters and is not used");
        }
        (can_be_sent && !token.is_empty()).then(|| Self(token.to_owned()))
    }

    /// What is sent.
    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// `~/x` is what people write where no shell reads it.
fn expanded(path: &Path, user: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), user) {
        (Ok(rest), Some(user)) => user.join(rest),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> HubSettings {
        HubSettings::from_variables(|name| {
            let (_, value) = variables.iter().find(|(key, _)| *key == name)?;
            Some(value.into())
        })
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        for (variables, cache) in [
            (vec![("HOME", "/u")], "/u/.cache/huggingface/hub"),
            (vec![("HOME", "/u"), ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (vec![("HOME", "/u"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")], "/h/hub"),
            (vec![("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")], "/c"),
            (vec![("HF_HOME", "~/h"), ("HOME", "/u")], "/u/h/hub"),
            (vec![("HF_HOME", ""), ("HOME", "/u")], "/u/.cache/huggingface/hub"),
            (vec![], ""),
        ] {
            assert_eq!(settings(&variables).cache, Path::new(cache), "{variables:?}");
        }
    }

    #[test]
    fn the_endpoint_loses_its_last_slash() {
        assert_eq!(settings(&[]).endpoint, "https://huggingface.co");
        assert_eq!(settings(&[("HF_ENDPOINT", "http://h:1/")]).endpoint, "http://h:1");
    }

    #[test]
    fn an_endpoint_that_no_request_can_go_to_is_told() {
        for sound in ["https://hub.example", "http://127.0.0.1:8080", "http://[::1]:1/mirror"] {
            assert_eq!(settings(&[("HF_ENDPOINT", sound)]).endpoint_fault(), None, "{sound}");
        }
        for wrong in ["hub.example", "ftp://hub.example", "http://", "file:///hub", "https:// x"] {
            let fault = settings(&[("HF_ENDPOINT", wrong)]).endpoint_fault().unwrap();
            assert!(fault.contains(wrong.trim_end_matches('/')), "{fault}");
        }
    }

    #[test]
    fn offline_is_what_python_takes_for_yes() {
        for yes in ["1", "true", "TRUE", "Yes", "on", " ON "] {
            assert!(settings(&[("HF_HUB_OFFLINE", yes)]).is_offline, "{yes}");
        }
        for no in ["", "0", "false", "no", "off", "2"] {
            assert!(!settings(&[("HF_HUB_OFFLINE", no)]).is_offline, "{no}");
        }
    }

    #[test]
    fn the_token_comes_from_the_variable_then_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        let other = folder.path().join("other");
        std::fs::write(folder.path().join("token"), "in-home\n").unwrap();
        std::fs::write(&other, "in-file").unwrap();
        let other = other.to_str().unwrap();
        let token = |variables: &[(&str, &str)]| settings(variables).token;
        assert_eq!(token(&[("HF_HOME", home)]), Token::new("in-home"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN_PATH", other)]), Token::new("in-file"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", " direct\n")]), Token::new("direct"));
        assert_eq!(token(&[("HF_HOME", other)]), None);
        assert_eq!(Token::new(" \n"), None);
        assert_eq!(Token::new("two\nlines"), None);
    }

    #[test]
    fn a_token_is_never_shown() {
        let shown = format!("{:?}", settings(&[("HF_TOKEN", "hf_secret")]));
        assert!(shown.contains("Token") && !shown.contains("secret"), "{shown}");
    }
}
