//! What may become part of a path or an address: names, revisions, listed files, etags.

use std::path::{Component, Path};

use super::HubError;

/// Checks `org/name` or `name`.
pub(super) fn check_name(name: &str) -> Result<(), HubError> {
    // "--" stands between the parts of a cache folder's name: a name with it could be taken for
    // another model's.
    let is_good = name.split('/').count() <= 2
        && name.split('/').all(is_plain)
        && !name.contains("--")
        && name.len() <= 200;
    if is_good { Ok(()) } else { Err(HubError::BadName { name: name.to_owned() }) }
}

/// Checks a branch, a tag or a commit hash.
pub(super) fn check_revision(revision: &str) -> Result<(), HubError> {
    if revision.len() <= 200 && revision.split('/').all(is_plain) {
        Ok(())
    } else {
        Err(HubError::BadRevision { revision: revision.to_owned() })
    }
}

/// Whether the file stays below the folder that it is listed in.
pub(super) fn stays_inside(file: &str) -> bool {
    let is_normal = |part| matches!(part, Component::Normal(_));
    !file.is_empty()
        && !file.contains(['\\', '\0'])
        && !file.split('/').any(|part| matches!(part, "" | "." | ".."))
        && Path::new(file).components().all(is_normal)
}

/// Whether an etag can name a file: the hub's are hashes.
pub(super) fn is_blob_name(etag: &str) -> bool {
    etag.len() <= 128 && is_plain(etag) && !etag.ends_with(".incomplete")
}

/// Whether the revision is a full commit hash, and so never means anything else later.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// One part of a path that is nothing special to a file system or a shell.
fn is_plain(part: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !part.is_empty()
        && !part.starts_with(['.', '-'])
        && !part.contains("..")
        && part.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_org_and_name() {
        for good in ["bert", "BAAI/bge-small-en-v1.5", "sentence-transformers/all_MiniLM"] {
            check_name(good).unwrap();
        }
        for bad in [
            "", "/", "a/", "/a", "a/b/c", "../a", "a/..", "a..b", "a--b", "a b", "a/b?x", "ä",
            "-a", ".a", "a\0",
        ] {
            assert!(matches!(check_name(bad), Err(HubError::BadName { .. })), "{bad:?}");
        }
    }

    #[test]
    fn revisions_are_branches_tags_and_hashes() {
        for good in ["main", "v1.0", "refs/pr/7", "0123456789abcdef0123456789abcdef01234567"] {
            check_revision(good).unwrap();
        }
        for bad in ["", "../main", "a//b", "/a", "a#b", "a\nb", "x/../y"] {
            assert!(check_revision(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn listed_files_stay_inside() {
        for good in ["config.json", "1_Pooling/config.json", "a b/ä.json", "..a"] {
            assert!(stays_inside(good), "{good}");
        }
        for bad in ["", "../x", "a/../../x", "/etc/x", "a//b", "./a", "a\\..\\b", "a/", "a\0"] {
            assert!(!stays_inside(bad), "{bad:?}");
        }
        assert!(!is_blob_name("../x") && !is_blob_name("a.incomplete") && is_blob_name("0af3-2"));
    }
}
