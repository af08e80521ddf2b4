//! Where the hub is, where its files are kept, and who asks: from variables that are handed in.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Where models are kept when nobody says where and there is no home folder, as for a service.
const HOMELESS_CACHE: &str = "/var/cache";

/// How the model hub is reached, and where its files are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// The folder that holds `models--org--name` folders. Python's `huggingface_hub` shares it.
    pub cache: PathBuf,
    /// The hub's address, without a slash at its end.
    pub endpoint: String,
    /// Who asks, for private and gated models.
    pub token: Option<Token>,
    /// Whether only the cache is used and no request is ever sent.
    pub is_offline: bool,
}

/// An access token. It is never shown, not even by `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a token, or nothing when it is blank.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// The token itself, for the one header that carries it.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl HubSettings {
    /// Takes the settings from variables named as Python's `huggingface_hub` names them, with its
    /// precedence: `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HOME`; `HF_ENDPOINT`; `HF_TOKEN`,
    /// then the file that `HF_TOKEN_PATH` names or `token` in `HF_HOME`, unless
    /// `HF_HUB_DISABLE_IMPLICIT_TOKEN`; `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`.
    ///
    /// An empty variable counts as none. Reads the token file, and nothing else.
    #[must_use]
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).map(|value| value.to_string_lossy().into_owned());
        let user_home = set("HOME").map(PathBuf::from);
        let folder = |name: &str| set(name).map(|value| expand(value, user_home.as_deref()));

        let hub_home = folder("HF_HOME").unwrap_or_else(|| {
            folder("XDG_CACHE_HOME")
                .or_else(|| user_home.as_ref().map(|home| home.join(".cache")))
                .unwrap_or_else(|| PathBuf::from(HOMELESS_CACHE))
                .join("huggingface")
        });
        let endpoint = text("HF_ENDPOINT").unwrap_or_default();
        let endpoint = match endpoint.trim_end_matches('/') {
            "" => DEFAULT_ENDPOINT,
            given => given,
        };
        let is_true = |name: &str| text(name).is_some_and(|value| is_true(&value));
        let token = || {
            if is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
                return None;
            }
            let named = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter().filter_map(text);
            named.filter_map(|value| Token::new(&value)).next().or_else(|| {
                let file = folder("HF_TOKEN_PATH").unwrap_or_else(|| hub_home.join("token"));
                Token::new(&std::fs::read_to_string(file).ok()?)
            })
        };
        Self {
            cache: folder("HF_HUB_CACHE")
                .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
                .unwrap_or_else(|| hub_home.join("hub")),
            endpoint: endpoint.to_owned(),
            token: token(),
            // The second counts only where the first says nothing.
            is_offline: match text("HF_HUB_OFFLINE") {
                Some(value) => self::is_true(&value),
                None => is_true("TRANSFORMERS_OFFLINE"),
            },
        }
    }
}

fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].iter().any(|yes| value.trim().eq_ignore_ascii_case(yes))
}

/// A leading `~` is the user's home, as in Python.
fn expand(path: OsString, home: Option<&Path>) -> PathBuf {
    let path = PathBuf::from(path);
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> HubSettings {
        HubSettings::from_variables(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_cache_is_where_python_looks_for_it() {
        let cache = |variables| settings(variables).cache;
        assert_eq!(cache(&[("HOME", "/h")]), Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(
            cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]),
            Path::new("/x/huggingface/hub")
        );
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/hf")]), Path::new("/hf/hub"));
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "~/hf")]), Path::new("/h/hf/hub"));
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]), Path::new("/c"));
        assert_eq!(
            cache(&[("HF_HOME", ""), ("HOME", "/h")]),
            Path::new("/h/.cache/huggingface/hub")
        );
        assert_eq!(cache(&[]), Path::new("/var/cache/huggingface/hub"));
    }

    #[test]
    fn the_endpoint_has_no_slash_at_its_end() {
        assert_eq!(settings(&[]).endpoint, DEFAULT_ENDPOINT);
        assert_eq!(
            settings(&[("HF_ENDPOINT", "http://mirror:80/hf/")]).endpoint,
            "http://mirror:80/hf"
        );
    }

    #[test]
    fn a_token_is_found_and_never_shown() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().to_str().unwrap();
        std::fs::write(home.path().join("token"), "from-file\n").unwrap();
        std::fs::write(home.path().join("other"), "from-other").unwrap();
        let other = format!("{folder}/other");
        let token = |variables: &[(&str, &str)]| {
            settings(variables).token.map(|token| token.reveal().to_owned())
        };
        assert_eq!(token(&[("HF_TOKEN", "secret"), ("HF_HOME", folder)]).unwrap(), "secret");
        assert_eq!(token(&[("HF_HOME", folder)]).unwrap(), "from-file");
        assert_eq!(token(&[("HF_HOME", folder), ("HF_TOKEN_PATH", &other)]).unwrap(), "from-other");
        assert_eq!(token(&[("HF_TOKEN", "s"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(token(&[]), None);
        let shown = format!("{:?}", settings(&[("HF_TOKEN", "secret")]));
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn offline_is_said_in_several_ways() {
        for yes in ["1", "true", "TRUE", "Yes", "on"] {
            assert!(settings(&[("HF_HUB_OFFLINE", yes)]).is_offline, "{yes}");
        }
        for no in ["0", "", "false", "2"] {
            assert!(!settings(&[("HF_HUB_OFFLINE", no)]).is_offline, "{no}");
        }
        assert!(settings(&[("TRANSFORMERS_OFFLINE", "1")]).is_offline);
        assert!(!settings(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]).is_offline);
    }
}
