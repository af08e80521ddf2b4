//! The hub's listing of a repository. Everything in it is checked.

use crate::hub::error::HubError;
use crate::hub::name::{HubModel, is_commit};
use serde::Deserialize;

/// A repository at one commit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<ListedFile>,
}

/// One of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListedFile {
    /// Within the repository; it never leads out of it.
    pub(super) path: String,
    /// Its content, if the listing has it; that of some mirrors does not.
    pub(super) content: Option<Content>,
}

/// The identity of a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) id: BlobId,
    pub(super) size: u64,
}

/// The name of a content, which is its file name in the cache: the SHA-256 of a large file, or git's
/// hash of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlobId(String);

impl Listing {
    /// Parses the hub's answer.
    pub(super) fn read(json: &[u8], model: &HubModel, endpoint: &str) -> Result<Self, HubError> {
        let odd = |what| HubError::Answer { endpoint: endpoint.into(), what };
        let info: Info =
            serde_json::from_slice(json).map_err(|_| odd("the listing cannot be parsed"))?;
        if !is_commit(&info.sha) {
            return Err(odd("the listing names no commit"));
        }
        if model.is_pinned() && info.sha != model.revision {
            return Err(odd("the listing is of another commit"));
        }
        if let Some(bad) = info.siblings.iter().find(|file| !is_inside(&file.rfilename)) {
            let (name, file) = (model.name.clone(), bad.rfilename.clone());
            return Err(HubError::Escapes { name, file });
        }
        let files = info.siblings.into_iter().map(Sibling::listed).collect();
        Ok(Self { commit: info.sha, files })
    }
}

impl BlobId {
    /// An etag or an id; `None` if it cannot be a file name.
    pub(super) fn new(etag: &str) -> Option<Self> {
        let id = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_id = (1..=128).contains(&id.len()) && id.bytes().all(is_plain);
        is_id.then(|| Self(id.to_owned()))
    }

    /// The file name.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Git's hash of the content, if this is one: SHA-1 over a header and the bytes.
    pub(super) fn git_sha1(&self) -> Option<&str> {
        let is_hash = self.0.len() == 40 && self.0.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then_some(&*self.0)
    }

    /// The SHA-256 of the content, if this is one.
    pub(super) fn sha256(&self) -> Option<&str> {
        let is_hash = self.0.len() == 64 && self.0.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then_some(&*self.0)
    }
}

/// Whether a path stays in the folder that it is relative to, on any system.
pub(super) fn is_inside(path: &str) -> bool {
    !path.contains(['\\', '\0', ':'])
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl Sibling {
    fn listed(self) -> ListedFile {
        let content = match (self.lfs, self.size, self.blob_id) {
            (Some(Lfs { sha256, size }), _, _) => Some((sha256, size)),
            (None, Some(size), Some(id)) => Some((id, size)),
            (None, _, _) => None,
        };
        let content = content.and_then(|(id, size)| Some(Content { id: BlobId::new(&id)?, size }));
        ListedFile { path: self.rfilename, content }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

    fn read(json: &str) -> Result<Listing, HubError> {
        Listing::read(json.as_bytes(), &HubModel::new("a/b", "main").unwrap(), "http://h")
    }

    #[test]
    fn large_files_are_named_by_their_hash_and_small_ones_by_git() {
        let hash = "ab".repeat(32);
        let listing = read(&format!(
            r#"{{"sha":"{SHA}","siblings":[
                {{"rfilename":"a","size":9,"blobId":"{SHA}"}},
                {{"rfilename":"b","size":7,"blobId":"x","lfs":{{"sha256":"{hash}","size":8}}}},
                {{"rfilename":"c"}},
                {{"rfilename":"d","size":1,"blobId":"../x"}}]}}"#
        ))
        .unwrap();
        let contents: Vec<_> = listing
            .files
            .iter()
            .map(|file| file.content.as_ref().map(|content| (content.id.as_str(), content.size)))
            .collect();
        assert_eq!(contents, [Some((SHA, 9)), Some((&*hash, 8)), None, None]);
        assert_eq!(BlobId::new(&hash).unwrap().sha256(), Some(&*hash));
        assert_eq!(BlobId::new(SHA).unwrap().sha256(), None);
    }

    #[test]
    fn etags_become_file_names_or_nothing() {
        for (etag, id) in
            [("\"abc\"", Some("abc")), ("W/\"a-1\"", Some("a-1")), ("abc", Some("abc"))]
        {
            assert_eq!(BlobId::new(etag).as_ref().map(BlobId::as_str), id);
        }
        for etag in ["", "\"\"", "a/b", "..", "a.part", "a b"] {
            assert_eq!(BlobId::new(etag), None, "{etag:?}");
        }
    }

    #[test]
    fn a_path_that_leaves_the_folder_is_refused() {
        for path in
            ["../x", "a/../../x", "/etc/passwd", "a//b", "a/./b", "", "a/", "..\\x", "c:x", "a\\0"]
        {
            let json = serde_json::json!({ "sha": SHA, "siblings": [{ "rfilename": path }] });
            let refused = read(&json.to_string());
            assert!(matches!(refused, Err(HubError::Escapes { .. })), "{path:?}: {refused:?}");
        }
    }

    #[test]
    fn an_invalid_listing_is_refused() {
        for json in ["", "[]", "{}", r#"{"sha":"main","siblings":[]}"#, "<html>"] {
            assert!(matches!(read(json), Err(HubError::Answer { .. })), "{json}");
        }
        let model = HubModel::new("a/b", &"0".repeat(40)).unwrap();
        let json = format!(r#"{{"sha":"{SHA}","siblings":[]}}"#);
        let other = Listing::read(json.as_bytes(), &model, "http://h");
        assert!(matches!(other, Err(HubError::Answer { .. })));
    }

    proptest! {
        #[test]
        fn listed_paths_stay_inside_the_folder(path in "[a./\\\\]{0,12}") {
            if is_inside(&path) {
                let normal = |part| matches!(part, std::path::Component::Normal(_));
                prop_assert!(std::path::Path::new(&path).components().all(normal));
            }
        }
    }
}
