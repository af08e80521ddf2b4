//! Two tries, wrong bytes, and a full disk.

use crate::hub::error::HubError;
use crate::hub::listing::{BlobId, Content};
use crate::hub::partial_blob::{PartialBlob, Sum};
use sha2::{Digest, Sha256};
use std::fs::OpenOptions;

const HALF: &[u8] = b"half of ";
const REST: &[u8] = b"it";

fn content() -> Content {
    let hash = Sha256::digest([HALF, REST].concat());
    let id: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    Content { id: BlobId::new(&id).unwrap(), size: 10 }
}

#[tokio::test]
async fn bytes_of_two_tries_are_one_content() {
    let folder = tempfile::tempdir().unwrap();
    let (path, blob) = (folder.path().join("x.part"), folder.path().join("x"));
    let mut part = PartialBlob::open(path.clone(), &content()).await.unwrap();
    part.write(HALF).await.unwrap();
    part.keep().await.unwrap();
    drop(part);
    let mut part = PartialBlob::open(path.clone(), &content()).await.unwrap();
    assert_eq!(part.done(), 8);
    part.write(REST).await.unwrap();
    part.finish("f", &blob).await.unwrap();
    assert_eq!(std::fs::read(&blob).unwrap(), b"half of it");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_small_file_is_what_git_names() {
    let folder = tempfile::tempdir().unwrap();
    let (path, blob) = (folder.path().join("x.part"), folder.path().join("x"));
    // What `printf 'half of it' | git hash-object --stdin` says.
    let id = BlobId::new("991a3df2be194555dc4abfaf6a082e87ec4c4497").unwrap();
    for (bytes, is_right) in [(b"half of it", true), (b"half of xt", false)] {
        let content = Content { id: id.clone(), size: 10 };
        let mut part = PartialBlob::open(path.clone(), &content).await.unwrap();
        part.write(bytes).await.unwrap();
        assert_eq!(part.finish("f", &blob).await.is_ok(), is_right);
    }
}

#[tokio::test]
async fn partial_or_wrong_bytes_never_get_the_name_of_the_content() {
    let folder = tempfile::tempdir().unwrap();
    let (path, blob) = (folder.path().join("x.part"), folder.path().join("x"));
    for (bytes, wrong) in [(HALF, "size"), (b"other it..", "hash")] {
        let mut part = PartialBlob::open(path.clone(), &content()).await.unwrap();
        part.write(bytes).await.unwrap();
        let error = part.finish("f", &blob).await.unwrap_err();
        assert!(matches!(error, HubError::Mismatch { what, .. } if what == wrong), "{error:?}");
        assert!(!blob.exists() && !path.exists());
    }
}

#[tokio::test]
async fn a_full_disk_is_reported_and_not_left_full() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.part");
    std::fs::write(&path, "what came before").unwrap();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let file = tokio::fs::File::from_std(full);
    let mut part = PartialBlob {
        path: path.clone(),
        file,
        done: 0,
        content: content(),
        sum: Sum::of(&content()),
    };
    part.write(HALF).await.unwrap();
    let error = part.keep().await.unwrap_err();
    assert!(matches!(error, HubError::Cache { .. }), "{error:?}");
    assert!(error.to_string().contains("make room"), "{error}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_device_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.part");
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    assert_eq!(PartialBlob::open(path, &content()).await.unwrap().done(), 0);
}
