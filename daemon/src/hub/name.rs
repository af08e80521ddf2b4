//! A model's name and revision, checked before they are used in a request or a path.

use crate::hub::error::HubError;
use hf_hub::{Repo, RepoType};

/// A model at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HubModel {
    pub(super) name: String,
    pub(super) revision: String,
}

impl HubModel {
    /// Checks both. They become parts of paths and URLs, so only plain characters are accepted.
    pub(super) fn new(name: &str, revision: &str) -> Result<Self, HubError> {
        let parts: Vec<_> = name.split('/').collect();
        // "--" stands for the slash in the cache, and "name.git" is another URL of "name". The hub
        // does not allow such names either.
        let is_name = parts.len() <= 2
            && name.len() <= 96
            && parts.iter().copied().all(is_plain)
            && !name.contains("--")
            && !name.ends_with(".git");
        if !is_name {
            return Err(HubError::BadName { name: name.into() });
        }
        if !is_revision(revision) {
            return Err(HubError::BadRevision { revision: revision.into() });
        }
        Ok(Self { name: name.into(), revision: revision.into() })
    }

    /// Whether the revision is a commit, which determines the files.
    pub(super) fn is_pinned(&self) -> bool {
        is_commit(&self.revision)
    }

    /// The model at another revision, for hf-hub.
    pub(super) fn at(&self, revision: &str) -> Repo {
        Repo::with_revision(self.name.clone(), RepoType::Model, revision.to_owned())
    }
}

/// Whether a text can be a branch, a tag or a commit.
pub(crate) fn is_revision(revision: &str) -> bool {
    revision.len() <= 200
        && revision.split('/').all(|part| is_plain(part) && !part.ends_with(".lock"))
}

/// Whether this is the full hash of a commit, as the hub writes it.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_plain(part: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !part.is_empty()
        && part.bytes().all(is_plain)
        && !part.starts_with(['.', '-'])
        && !part.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for name in ["gpt2", "sentence-transformers/all-MiniLM-L6-v2", "a/b.c_d-1"] {
            assert!(HubModel::new(name, "main").is_ok(), "{name}");
        }
        let long = "x".repeat(97);
        for name in [
            "", "/", "a/", "/a", "a/b/c", "..", "../a", "a/..", "a/b..c", ".a", "a b", "a\\b",
            "a?b", "a%2fb", "ä", "a\nb", "a--b", "a/b.git", "-a", &long,
        ] {
            let refused = HubModel::new(name, "main");
            assert!(matches!(refused, Err(HubError::BadName { .. })), "{name:?}");
        }
    }

    #[test]
    fn revisions_are_plain() {
        for revision in ["main", "v1.0", "refs/pr/1", "0123456789abcdef0123456789abcdef01234567"] {
            assert!(HubModel::new("a/b", revision).is_ok(), "{revision}");
        }
        for revision in ["", "..", "a/../b", "/main", "main/", "a b", "a#b", "a?b", ".x", "x.lock"]
        {
            let refused = HubModel::new("a/b", revision);
            assert!(matches!(refused, Err(HubError::BadRevision { .. })), "{revision:?}");
        }
    }

    #[test]
    fn only_a_whole_commit_is_pinned() {
        let is_pinned = |revision: &str| HubModel::new("a/b", revision).unwrap().is_pinned();
        assert!(is_pinned(&"a1".repeat(20)));
        assert!(!is_pinned("main"));
        assert!(!is_pinned(&"a1".repeat(10)));
        assert!(!is_pinned(&"A1".repeat(20)));
        assert!(!is_pinned(&"g1".repeat(20)));
    }
}
